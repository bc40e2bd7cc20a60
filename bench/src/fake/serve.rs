//! Accepts connections and runs requests on them, watching all the while whether the client is still there.

use super::{
    Call, Script, Server,
    emit::After,
    fault::Fault,
    record::Ticket,
    route,
    wire::{Reader, Reply, Request, Writer},
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::{io, net::SocketAddr, sync::Arc, time::Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const BACKLOG: i32 = 4096;

pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

pub(super) async fn accept(
    listener: TcpListener,
    server: Arc<Server>,
    closing: CancellationToken,
    killed: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                server.ledger.note(|seen| seen.connections += 1);
                let connection = connection(stream, Arc::clone(&server), closing.clone(), killed.clone());
                crate::task::spawn(tasks.track_future(connection));
            }
            // Out of descriptors: the next may fit.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    }
}

async fn connection(mut stream: TcpStream, server: Arc<Server>, closing: CancellationToken, killed: CancellationToken) {
    drop(stream.set_nodelay(true));
    let after = {
        let (reading, writing) = stream.split();
        let exchanges = exchanges(Reader::new(reading), Writer::new(writing), &server, &closing);
        tokio::select! {
            biased;
            () = killed.cancelled() => After::Reset,
            after = exchanges => after.unwrap_or(After::Close),
        }
    };
    if after == After::Reset {
        drop(SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)));
    }
}

/// Serves requests until one end closes.
async fn exchanges(mut reader: Reader<'_>, mut out: Writer<'_>, server: &Arc<Server>, closing: &CancellationToken) -> io::Result<After> {
    loop {
        let head = tokio::select! {
            biased;
            head = reader.head() => head?,
            () = closing.cancelled() => return Ok(After::Close),
        };
        let Some(mut request) = head else { return Ok(After::Close) };
        if request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            out.send(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let (script, fault) = {
            let mut shared = server.shared();
            (Arc::clone(&shared.script), shared.faults.draw(&request.path))
        };
        if let Some(after) = break_body(&mut reader, &mut request, fault.as_ref(), server).await? {
            return Ok(after);
        }
        reader.body(&mut request).await?;
        let after = exchange(&mut reader, &mut out, server, &request, (script, fault)).await?;
        if after != After::Next || request.close || closing.is_cancelled() {
            return Ok(if after == After::Reset { after } else { After::Close });
        }
    }
}

/// Reads so much of a body as a fault lets through.
async fn break_body(reader: &mut Reader<'_>, request: &mut Request, fault: Option<&Fault>, server: &Server) -> io::Result<Option<After>> {
    let Some(Fault::ResetInBody(bytes) | Fault::StallInBody(bytes)) = fault else { return Ok(None) };
    reader.some(*bytes, request).await?;
    let ticket = server.ledger.open(request, fault.cloned(), server.shared().script.remember);
    if matches!(fault, Some(Fault::StallInBody(_))) {
        std::future::pending::<()>().await;
    }
    Ok(Some(broken(&ticket, After::Reset)))
}

async fn exchange(
    reader: &mut Reader<'_>,
    out: &mut Writer<'_>,
    server: &Arc<Server>,
    request: &Request,
    (script, fault): (Arc<Script>, Option<Fault>),
) -> io::Result<After> {
    let received = Instant::now();
    let ticket = server.ledger.open(request, fault.clone(), script.remember);
    out.head_only = request.method == "HEAD";
    out.close = request.close;
    out.split = fault == Some(Fault::SplitBytes);
    out.slow_head = match &fault {
        Some(Fault::SlowHeaders(gap)) => Some(*gap),
        _ => None,
    };
    let call = Call { request, ticket: &ticket, script, fault, received };
    tokio::select! {
        biased;
        after = respond(server, &call, out) => after,
        // The ticket is dropped unfinished and so records the phase.
        () = reader.gone() => Ok(After::Close),
    }
}

async fn respond(server: &Arc<Server>, call: &Call<'_>, out: &mut Writer<'_>) -> io::Result<After> {
    match &call.fault {
        Some(Fault::Status { code, message, retry_after_s }) => {
            let reply = Reply::error(*code, message);
            let reply = match retry_after_s {
                Some(seconds) => reply.with("Retry-After", seconds.to_string()),
                None => reply,
            };
            call.reply(&reply, out).await
        }
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::CloseBeforeHeaders) => Ok(broken(call.ticket, After::Close)),
        Some(Fault::ResetBeforeHeaders) => Ok(broken(call.ticket, After::Reset)),
        _ => route::answer(server, call, out).await,
    }
}

fn broken(ticket: &Ticket, after: After) -> After {
    ticket.broken();
    after
}
