//! Sending a file.

use std::path::Path;

use serde_json::Value;

use super::{Client, builder, started};
use crate::cli::exit::{Exit, Failure};

impl Client {
    /// Sends a file for jobs to read, however long that takes.
    ///
    /// # Errors
    /// When it cannot be read, or the gateway cannot be reached or refuses.
    pub async fn upload(&self, file: &Path, name: &str) -> Result<Value, Failure> {
        let mut address = self.address("files")?;
        if let Ok(mut path) = address.path_segments_mut() {
            path.push(name);
        }
        let unreadable = |error: std::io::Error| {
            let (path, hint) = (file.display(), "name a file that is there and can be read");
            Failure::new(Exit::Usage, format!("`{path}` cannot be read: {error}"), hint)
        };
        let body = tokio::fs::File::open(file).await.map_err(unreadable)?;
        let about = body.metadata().await.map_err(unreadable)?;
        if !about.is_file() {
            return Err(unreadable(std::io::Error::other("it is no file")));
        }
        // No answer comes before all of it has gone, so that silence means nothing.
        let http = started(builder(&address))?;
        let request = http.put(address).header(http::header::CONTENT_LENGTH, about.len()).body(body);
        let response = self.accepted(self.bearing_key(request).send().await).await?;
        response.json().await.map_err(|error| self.unintelligible(&error))
    }
}
