//! Room for a training: the models that an Ollama on this machine keeps in memory leave it where the operator's policy says so.
//!
//! Ollama loads a model again when it is next asked for; one that is answering goes when it is done. Nothing here fails a training: what
//! cannot be unloaded is told, and the training tries with the memory that there is.

use std::time::Duration;

use crate::backends::Backend;
use crate::backends::ollama::Ollama;
use crate::jobs::config::Unload;
use crate::jobs::make::{Server, Watcher};

/// Looks at whether unloaded models are gone, and the pause between two of them.
const LOOKS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(250);

/// Unloads what the policy says. `missing`: whether the memory that is free now is too little.
pub fn make(servers: &[Server], policy: Unload, missing: bool, watcher: &dyn Watcher) {
    let wanted = match policy {
        Unload::Never => false,
        Unload::WhenNeeded => missing,
        Unload::Always => true,
    };
    let local: Vec<&Server> = servers.iter().filter(|server| server.0.is_on_this_machine()).collect();
    if !wanted || local.is_empty() {
        return;
    }
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(async {
            for server in local {
                unload(server, watcher).await;
            }
        }),
        Err(error) => watcher.note(&format!("no model of Ollama was unloaded: {error}")),
    }
}

async fn unload(server: &Server, watcher: &dyn Watcher) {
    let name = server.name();
    let unloading = async {
        let ollama = Ollama::new(server.0.clone()).map_err(|error| error.to_string())?;
        let loaded = ollama.resident().await.map_err(|error| error.to_string())?;
        for resident in &loaded {
            ollama.unload(resident.model.clone()).await.map_err(|error| error.to_string())?;
            let bytes = resident.size_bytes.map(|bytes| format!(", which took {} MB", bytes / 1_000_000)).unwrap_or_default();
            watcher.note(&format!("{name}: unloaded {}{bytes}", resident.model));
        }
        // The server answers before the memory is free.
        for _ in 0..LOOKS {
            let there = ollama.resident().await.map_err(|error| error.to_string())?;
            if watcher.cancel().is_cancelled() || !there.iter().any(|one| loaded.iter().any(|gone| gone.model == one.model)) {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok::<(), String>(())
    };
    if let Err(why) = unloading.await {
        watcher.note(&format!("{name}: its models stay in memory: {why}"));
    }
}
