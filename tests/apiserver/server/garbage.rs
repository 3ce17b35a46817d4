//! Answers that no client accepts.

use std::io;
use std::time::Duration;

use hyper::body::{Bytes, Frame};
use tokio::sync::mpsc::Sender;
use tokio::time::sleep;

use super::media::Format;
use super::protobuf;
use super::state::Garbage;

pub(crate) type Frames = Sender<io::Result<Frame<Bytes>>>;

/// More than a client accepts of one message, which is 64 MiB.
const TOO_LARGE: usize = (64 << 20) + 1;

/// A field of type 7; there are 0 to 5 (protobuf.dev/programming-guides/encoding).
const UNKNOWN_WIRE_TYPE: &[u8] = &[0x0f, 0x01];

/// Sends garbage instead of `whole`, a list or some events of a watch.
pub(crate) async fn send(frames: &Frames, garbage: Garbage, format: Format, whole: Whole) {
    let begin = begin(garbage, format, &whole);
    let send = async |bytes: Vec<u8>| frames.send(Ok(Frame::data(bytes.into()))).await;
    // The client may be gone at any point.
    send(begin).await.ok();
    match garbage {
        Garbage::Truncated | Garbage::Random | Garbage::UnknownWireType => {}
        Garbage::Unfinished => frames.closed().await,
        Garbage::TooLarge => {
            if whole.has_frames(format) {
                return frames.closed().await;
            }
            let (mut total, chunk) = (0, vec![b' '; 1 << 20]);
            while total < TOO_LARGE && send(chunk.clone()).await.is_ok() {
                total += chunk.len();
            }
            frames.closed().await;
        }
        Garbage::Endless => {
            while send(vec![b' ']).await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// The answer, or the part of it, that the garbage replaces.
pub(crate) enum Whole {
    List(Vec<u8>),
    Watch(Vec<u8>),
}

impl Whole {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::List(bytes) | Self::Watch(bytes) => bytes,
        }
    }

    fn has_frames(&self, format: Format) -> bool {
        matches!((self, format), (Self::Watch(_), Format::Protobuf))
    }
}

fn begin(garbage: Garbage, format: Format, whole: &Whole) -> Vec<u8> {
    let half = || {
        let bytes = whole.bytes();
        bytes.get(..bytes.len() / 2).unwrap_or_default().to_owned()
    };
    let has_frames = whole.has_frames(format);
    match garbage {
        Garbage::Truncated | Garbage::Unfinished => half(),
        Garbage::Random => complete(&random(), format, whole),
        Garbage::UnknownWireType => match format {
            Format::Protobuf => complete(UNKNOWN_WIRE_TYPE, format, whole),
            Format::Json => complete(b"{]", format, whole),
        },
        Garbage::TooLarge if has_frames => header(TOO_LARGE),
        Garbage::Endless if has_frames => header(TOO_LARGE - 1),
        Garbage::TooLarge | Garbage::Endless => match format {
            Format::Protobuf => b"k8s\0".to_vec(),
            Format::Json => b"{".to_vec(),
        },
    }
}

/// Completes a message to a frame, a line or a body.
fn complete(message: &[u8], format: Format, whole: &Whole) -> Vec<u8> {
    let mut bytes = Vec::new();
    match (format, whole) {
        (Format::Protobuf, Whole::Watch(_)) => protobuf::frame(&mut bytes, message),
        (Format::Protobuf, Whole::List(_)) => {
            bytes.extend_from_slice(b"k8s\0");
            bytes.extend_from_slice(message);
        }
        (Format::Json, Whole::Watch(_) | Whole::List(_)) => {
            bytes.extend_from_slice(message);
            bytes.push(b'\n');
        }
    }
    bytes
}

fn header(length: usize) -> Vec<u8> {
    let length = u32::try_from(length).expect("a length of four bytes");
    length.to_be_bytes().to_vec()
}

/// Returns the same bytes each time, without a line break.
fn random() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        // xorshift64 by Marsaglia.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let bytes = (0..16).flat_map(next);
    bytes.filter(|byte| *byte != b'\n').collect()
}
