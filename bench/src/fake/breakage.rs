//! How an answer breaks in the middle.

use super::{
    answer::Said,
    emit::{After, Emission},
    fault::Midway,
    wire::{JSON, Reply, Writer},
};
use std::io;

const GARBAGE: &str = "<html><body>502 Bad Gateway</body></html>";
const ERROR: &str = "{\"error\":\"llama runner process has terminated: CUDA error: out of memory\"}";

impl Emission<'_> {
    /// Breaks a stream. None: it goes on.
    pub(super) async fn break_stream(&mut self, midway: Midway, out: &mut Writer<'_>) -> io::Result<Option<After>> {
        match midway {
            Midway::HugeLine(bytes) => {
                let line = self.dialect.piece(&Said::Text("x".repeat(bytes)));
                self.line(&line, out).await?;
                return Ok(None);
            }
            Midway::RunnerDeath => {
                self.lease.kill_runner();
                return self.died(out).await.map(Some);
            }
            Midway::ErrorLine if !self.opened => return self.refused(out).await.map(Some),
            Midway::ErrorLine => self.line(ERROR, out).await?,
            Midway::Garbage => self.line(GARBAGE, out).await?,
            Midway::TruncatedJson => {
                let line = self.dialect.piece(&Said::Text(" cut".to_owned()));
                self.bytes(&line.as_bytes()[..line.len() / 2], out).await?;
            }
            Midway::EndWithoutDone | Midway::Close | Midway::Reset | Midway::Stall => self.bytes(b"", out).await?,
        }
        match midway {
            Midway::Stall => std::future::pending().await,
            Midway::Close | Midway::Reset => {
                self.ticket.broken();
                Ok(Some(if midway == Midway::Close { After::Close } else { After::Reset }))
            }
            _ => self.finish(out).await.map(Some),
        }
    }

    /// Breaks an answer that is one JSON object.
    pub(super) async fn break_whole(&mut self, midway: Midway, said: &[Said], out: &mut Writer<'_>) -> io::Result<After> {
        match midway {
            Midway::RunnerDeath => {
                self.lease.kill_runner();
                return self.died(out).await;
            }
            Midway::ErrorLine => return self.refused(out).await,
            Midway::Close | Midway::Reset | Midway::Stall => {
                let (head, body) = Reply::new(200, JSON, self.dialect.whole(said, None)).bytes(false, out.close);
                out.send_head(head, &body[..body.len() / 2]).await?;
                if midway == Midway::Stall {
                    std::future::pending::<()>().await;
                }
                self.ticket.broken();
                return Ok(if midway == Midway::Close { After::Close } else { After::Reset });
            }
            _ => {}
        }
        let mut body = match midway {
            Midway::Garbage => GARBAGE.to_owned(),
            Midway::HugeLine(bytes) => self.dialect.whole(&[Said::Text("x".repeat(bytes))], None),
            _ => self.dialect.whole(said, None),
        };
        if midway == Midway::TruncatedJson {
            body = body.chars().take(body.len() / 2).collect();
        }
        out.reply(&Reply::new(200, JSON, body)).await?;
        self.ticket.answered(200);
        Ok(After::Next)
    }

    /// An error before anything was sent has a status.
    async fn refused(&mut self, out: &mut Writer<'_>) -> io::Result<After> {
        out.reply(&Reply::new(500, JSON, ERROR)).await?;
        self.ticket.answered(500);
        Ok(After::Next)
    }
}
