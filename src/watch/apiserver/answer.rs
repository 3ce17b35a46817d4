//! The answers to requests: errors, pages of a list, and the frames of a watch.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, Peekable, StreamExt, TryStreamExt};
use http::{Request, Response, header};
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec, LinesCodec, LinesCodecError};
use tokio_util::io::StreamReader;

use super::decode::{self, DecodeError, ListPage};
use super::failure::WatchFailure;
use super::kinds::Watched;
use super::status::WireStatus;
use crate::config::ContentType;

/// The largest frame of a watch, and the largest page of a list, in bytes.
pub(super) const MAX_MESSAGE: usize = 64 << 20;

/// The largest body of an error, in bytes.
const MAX_ERROR: usize = 1 << 20;

/// The frames of a watch, each one encoded event.
pub(super) type Frames = Peekable<BoxStream<'static, Result<Bytes, WatchFailure>>>;

/// Sends a request, and returns the body of a successful answer with its format.
pub(super) async fn send(
    client: &Client,
    request: Request<Body>,
    limit: Duration,
) -> Result<(ContentType, Body), WatchFailure> {
    let sending = timeout(limit, client.send(request));
    let response = sending.await.map_err(|_elapsed| WatchFailure::Silent)?;
    let response = response.map_err(WatchFailure::Connection)?;
    let media_type = header(&response, header::CONTENT_TYPE);
    let format = media_type.and_then(ContentType::of);
    if response.status().is_success() {
        return match format {
            Some(format) => Ok((format, response.into_body())),
            None => Err(WatchFailure::MediaType(
                media_type.unwrap_or("none").to_owned(),
            )),
        };
    }
    let code = response.status().as_u16();
    let pause = header(&response, header::RETRY_AFTER).and_then(|seconds| seconds.parse().ok());
    let body = Limited::new(response.into_body(), MAX_ERROR).collect();
    let status = match timeout(limit, body).await {
        Ok(Ok(body)) => decode::status(format, code, body.to_bytes()),
        // The status is known without the body.
        Ok(Err(_)) | Err(_) => WireStatus::of_code(code),
    };
    Err(WatchFailure::Rejected(status.retry_after_header(pause)))
}

/// Returns the text of a header.
fn header(response: &Response<Body>, name: header::HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// Reads the answer to the request of a page.
pub(super) async fn page<W: Watched>(
    (format, body): (ContentType, Body),
    limit: Duration,
) -> Result<ListPage<W>, WatchFailure> {
    let body = timeout(limit, Limited::new(body, MAX_MESSAGE).collect());
    let body = body.await.map_err(|_elapsed| WatchFailure::Silent)?;
    let body = body.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            WatchFailure::Malformed(DecodeError::TooLarge)
        } else {
            WatchFailure::Broken(io::Error::other(error))
        }
    })?;
    Ok(decode::page(format, body.to_bytes())?)
}

/// Splits the answer to the request of a watch into its frames.
pub(super) fn frames(format: ContentType, body: Body) -> Frames {
    let bytes = body.into_data_stream().map_err(io::Error::other);
    let reader = StreamReader::new(bytes);
    let frames = match format {
        ContentType::Protobuf => {
            let codec = LengthDelimitedCodec::builder()
                .max_frame_length(MAX_MESSAGE)
                .new_codec();
            let frames = FramedRead::new(reader, codec);
            frames
                .map(|frame| frame.map(Into::into).map_err(broken))
                .boxed()
        }
        ContentType::Json => {
            let lines = FramedRead::new(reader, LinesCodec::new_with_max_length(MAX_MESSAGE));
            lines
                .map(|line| match line {
                    Ok(line) => Ok(line.into()),
                    Err(LinesCodecError::MaxLineLengthExceeded) => {
                        Err(WatchFailure::Malformed(DecodeError::TooLarge))
                    }
                    Err(LinesCodecError::Io(error)) => Err(broken(error)),
                })
                .boxed()
        }
    };
    frames.peekable()
}

/// Converts an error of a codec: it reports a frame that is too large as invalid data.
fn broken(error: io::Error) -> WatchFailure {
    if error.kind() == io::ErrorKind::InvalidData {
        WatchFailure::Malformed(DecodeError::TooLarge)
    } else {
        WatchFailure::Broken(error)
    }
}
