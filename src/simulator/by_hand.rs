//! Answers as no proper server sends them: byte by byte, by halves, without end.
//!
//! Hyper sends what is well formed. What is not is written to the socket that it has left.

use std::fmt::Write as _;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

use hyper::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::exchange::{Manner, Response};
use crate::clock::Clock;
use crate::domain::time::Wall;

const GIGABYTE: usize = 1 << 30;
/// Written at once.
const BLOCK: usize = 1 << 16;

/// Sends an answer in this manner; returns when it is sent, and with an error when the client has left.
pub(super) async fn send(
    mut stream: TcpStream,
    answer: &Response,
    manner: Manner,
    now: Wall,
    clock: &dyn Clock,
) -> io::Result<()> {
    let (half, _) = answer.body.split_at(answer.body.len() / 2);
    match manner {
        Manner::HeadTrickles => {
            let head = head(answer, now, &format!("Content-Length: {}", answer.body.len()));
            trickle(&mut stream, head.as_bytes(), clock).await?;
            trickle(&mut stream, &answer.body, clock).await
        }
        Manner::BodyTrickles => {
            let head = head(answer, now, &format!("Content-Length: {}", answer.body.len()));
            stream.write_all(head.as_bytes()).await?;
            trickle(&mut stream, &answer.body, clock).await
        }
        Manner::BodyHangs => {
            let head = head(answer, now, &format!("Content-Length: {}", answer.body.len()));
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(half).await?;
            // Whatever the client says, it has been answered.
            while stream.read(&mut [0; 64]).await? > 0 {}
            Ok(())
        }
        Manner::Gigabyte => {
            stream.write_all(head(answer, now, &format!("Content-Length: {GIGABYTE}")).as_bytes()).await?;
            let block = vec![b' '; BLOCK];
            for _ in 0..GIGABYTE / BLOCK {
                stream.write_all(&block).await?;
            }
            Ok(())
        }
        Manner::GzipBomb => {
            let (start, more) = gzip_bomb();
            stream.write_all(head(answer, now, "Content-Encoding: gzip\r\nConnection: close").as_bytes()).await?;
            stream.write_all(&start).await?;
            loop {
                stream.write_all(&more).await?;
            }
        }
    }
}

fn head(answer: &Response, now: Wall, framing: &str) -> String {
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(u64::try_from(now.0).unwrap_or(0)));
    let reason = StatusCode::from_u16(answer.status).ok().and_then(|status| status.canonical_reason());
    let mut head = format!("HTTP/1.1 {} {}\r\nDate: {date}\r\n", answer.status, reason.unwrap_or_default());
    for (name, value) in &answer.headers {
        // Writing to a String cannot fail.
        write!(head, "{name}: {value}\r\n").unwrap_or_default();
    }
    head + framing + "\r\n\r\n"
}

async fn trickle(stream: &mut TcpStream, bytes: &[u8], clock: &dyn Clock) -> io::Result<()> {
    for byte in bytes {
        stream.write_all(&[*byte]).await?;
        clock.sleep_until(clock.boot() + Duration::from_secs(1)).await;
    }
    Ok(())
}

/// A gzip stream that begins with one blank and says "258 more of the same" for ever, some 160 to 1: its
/// start, and what may follow any number of times.
pub fn gzip_bomb() -> (Vec<u8>, Vec<u8>) {
    // Deflate with the fixed codes, bits from the lowest: block header 011, literal 0x20 (8 bits), then
    // length 258 (11000101) at distance 1 (00000), 13 bits a time; eight of them are 13 whole bytes.
    let mut bits: Vec<u8> = vec![1, 1, 0];
    bits.extend([0, 1, 0, 1, 0, 0, 0, 0]);
    let copy = [1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0];
    while !bits.len().is_multiple_of(8) {
        bits.extend(copy);
    }
    let bytes = |bits: &[u8]| -> Vec<u8> {
        bits.chunks(8).map(|eight| eight.iter().rev().fold(0, |byte, bit| byte << 1 | bit)).collect()
    };
    let mut start = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    start.extend(bytes(&bits));
    (start, bytes(&copy.repeat(8)).repeat(100))
}
