//! The address to listen on: whether it is free, and if not, who has it.

use std::net::{SocketAddr, TcpListener};

use super::Finding;
use super::processes;
use crate::cli::client::Client;
use crate::config::{Config, Variables};

/// How long whoever holds the address may take to say what it is.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

pub async fn look(config: &Config, variables: &Variables) -> Finding {
    let address = config.server.listen;
    if !address.ip().is_loopback() && !config.server.insecure_public_bind {
        let what = format!(
            "{address} can be reached by others, and `serve` refuses it unless there is a key (`arriero keys create --role admin`)"
        );
        return Finding::fail("address", what, "listen on 127.0.0.1, or say --insecure-public-bind if the network is trusted");
    }
    let public = !address.ip().is_loopback();
    match TcpListener::bind(address) {
        Ok(_) if public => {
            let mend = "nothing asks who they are: keep it inside a trusted network";
            Finding::warn("address", format!("{address} is free, and anyone who reaches it can use every model"), mend)
        }
        Ok(_) => Finding::ok("address", format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => taken(address, variables).await,
        Err(error) => Finding::fail("address", format!("{address} cannot be listened on: {error}"), "choose another with --listen"),
    }
}

async fn taken(address: SocketAddr, variables: &Variables) -> Finding {
    if is_gateway(address, variables).await {
        return Finding::ok("address", format!("{address} is served by an Arriero that is running"));
    }
    let holder = tokio::task::spawn_blocking(move || processes::listening_on(address.port())).await.ok().flatten();
    let holder = holder.map_or_else(|| "another program".to_owned(), |process| process.to_string());
    Finding::fail("address", format!("{address} is in use by {holder}"), "stop it, or choose another address with --listen")
}

/// Whether what answers there is a gateway of ours.
async fn is_gateway(address: SocketAddr, variables: &Variables) -> bool {
    let Ok(client) = Client::new(Some(&format!("http://{address}")), variables) else { return false };
    let version = tokio::time::timeout(PATIENCE, client.version()).await;
    version.is_ok_and(|answer| answer.is_ok_and(|version| version["version"].is_string() && version["features"].is_array()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;

    fn with(listen: &str) -> Config {
        let mut config = Config::default();
        config.server.listen = listen.parse().expect("an address");
        config
    }

    #[tokio::test]
    async fn a_taken_address_a_public_one_and_a_free_one() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("bound").to_string();
        let finding = look(&with(&address), &Variables::default()).await;
        assert_eq!(finding.level, Level::Fail, "{finding:?}");
        assert_eq!(look(&with("0.0.0.0:1"), &Variables::default()).await.level, Level::Fail);
        assert_eq!(look(&with("127.0.0.1:0"), &Variables::default()).await.level, Level::Ok);
    }
}
