//! The archive: gzip and tar of the parts, and a list of them.

use std::fmt::Write as _;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};

use super::collect::Collected;

/// Returns the text of README.txt: what is in the archive, what is missing and why.
pub(super) fn readme(name: &str, parts: &[Collected]) -> String {
    let width = parts.iter().map(|part| part.file.len()).max().unwrap_or(0);
    let mut text = format!("{name}\n\n");
    for Collected {
        file,
        origin,
        content,
    } in parts
    {
        // Writing to a String cannot fail.
        let _ = match content {
            Ok(content) => writeln!(text, "{file:<width$}  {} bytes  {origin}", content.len()),
            Err(reason) => writeln!(text, "{file:<width$}  MISSING  {origin}: {reason}"),
        };
    }
    text.push_str(
        "\nThe files contain the names and addresses of Services, endpoints and this node. They contain no\n\
         Secret, token, kubeconfig, certificate or environment variable.\n",
    );
    text
}

/// Writes the archive, with all files in one folder.
///
/// # Errors
/// If the target cannot be written.
pub(super) fn write(
    target: impl io::Write,
    name: &str,
    readme: &str,
    parts: &[Collected],
    time: SystemTime,
) -> io::Result<()> {
    let mut archive = Builder::new(GzEncoder::new(target, Compression::default()));
    // A clock before 1970 has no representation in tar.
    let time = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_secs());
    let mut add = |file: &str, content: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(time);
        archive.append_data(&mut header, format!("{name}/{file}"), content)
    };
    add("README.txt", readme.as_bytes())?;
    for Collected { file, content, .. } in parts {
        if let Ok(content) = content {
            add(file, content)?;
        }
    }
    archive.into_inner()?.finish()?.flush()
}
