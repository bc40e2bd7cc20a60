//! nginx as a plain pass-through: the yardstick of what a proxy costs.

use super::{
    cores::{Cores, View},
    process::{Process, free_address},
};
use anyhow::{Context, Result};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Debian keeps it out of a user's PATH.
const USUAL: &str = "/usr/sbin/nginx";

/// Where nginx is, if it is installed.
pub fn find() -> Option<PathBuf> {
    let path = std::env::split_paths(&path_variable()).map(|folder| folder.join("nginx")).find(|file| file.is_file());
    path.or_else(|| Some(PathBuf::from(USUAL)).filter(|file| file.is_file()))
}

#[expect(clippy::disallowed_methods, reason = "looks a program up; it configures nothing")]
fn path_variable() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// Starts it in front of an upstream: HTTP/1.1 with keep-alive on both sides, no buffering, no log.
pub async fn start(program: &Path, folder: &Path, upstream: SocketAddr, cores: Option<Cores>, view: View) -> Result<(Process, SocketAddr)> {
    let address = free_address()?;
    let config = folder.join(format!("nginx-{}.conf", view.name()));
    let workers = if view == View::Pinned { 1 } else { 2 };
    std::fs::write(&config, configuration(folder, address, upstream, workers)).context("writing the configuration of nginx")?;
    let mut command = cores.map_or_else(|| Command::new(program), |cores| cores.command(view, program));
    command.arg("-p").arg(folder).arg("-e").arg(folder.join("nginx-error.log")).arg("-c").arg(&config);
    let since = Instant::now();
    let mut process = Process::start("nginx", command, &folder.join(format!("nginx-{}.log", view.name())))?;
    process.answers(address, "/api/version", since, Duration::from_secs(20)).await?;
    Ok((process, address))
}

fn configuration(folder: &Path, address: SocketAddr, upstream: SocketAddr, workers: usize) -> String {
    let folder = folder.display();
    format!(
        "daemon off;\nworker_processes {workers};\npid {folder}/nginx-{port}.pid;\nerror_log {folder}/nginx-error.log;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n\
           access_log off;\n  tcp_nodelay on;\n  keepalive_requests 1000000;\n\
           client_body_temp_path {folder}/body;\n  proxy_temp_path {folder}/proxy;\n  fastcgi_temp_path {folder}/fastcgi;\n\
           uwsgi_temp_path {folder}/uwsgi;\n  scgi_temp_path {folder}/scgi;\n\
           upstream ollama {{ server {upstream}; keepalive 512; keepalive_requests 1000000; }}\n\
           server {{\n    listen {address};\n    location / {{\n\
               proxy_pass http://ollama;\n      proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n\
               proxy_set_header Host {upstream};\n      proxy_buffering off;\n      proxy_read_timeout 600s;\n    }}\n  }}\n}}\n",
        port = address.port()
    )
}
