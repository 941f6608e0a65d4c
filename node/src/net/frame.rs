//! One message on a stream: its length in four bytes, big endian, and its bytes.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Memory that is taken before the first byte came.
const FIRST_BYTES: usize = 4096;

/// Reads one message of at most `max` bytes. Memory grows with what comes, so that a claim of a
/// length costs nothing; `growing` is told how many bytes are taken next.
pub(super) async fn read(
    io: &mut (impl AsyncRead + Unpin),
    max: usize,
    growing: impl FnMut(usize),
) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    io.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > max {
        let text = format!("a message has at most {max} bytes here, got {length}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    read_body(io, length, growing).await
}

/// Reads so many bytes, as [`read`] does behind the length.
pub(super) async fn read_body(
    io: &mut (impl AsyncRead + Unpin),
    length: usize,
    mut growing: impl FnMut(usize),
) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let came = bytes.len();
        let next = (length - came).min(came.max(FIRST_BYTES));
        growing(next);
        bytes.reserve_exact(next);
        bytes.resize(came + next, 0);
        io.read_exact(&mut bytes[came..]).await?;
    }
    Ok(bytes)
}

/// Writes one message, and closes the writing half.
pub(super) async fn write(io: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    io.write_all(&[&length.to_be_bytes()[..], bytes].concat())
        .await?;
    io.close().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_is_read_as_it_was_written_and_never_more_is_taken_than_twice_what_came() {
        for length in [0, 1, FIRST_BYTES, 3 * FIRST_BYTES + 1] {
            let message: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let mut written = futures::io::Cursor::new(Vec::new());
            write(&mut written, &message).await.expect("memory");
            written.set_position(0);
            let mut taken = Vec::new();

            let read = read(&mut written, length, |bytes| taken.push(bytes)).await;

            assert_eq!(read.expect("whole"), message);
            assert_eq!(taken.iter().sum::<usize>(), length);
            let mut came = 0;
            for next in taken {
                assert!(next <= came.max(FIRST_BYTES));
                came += next;
            }
        }
    }
}
