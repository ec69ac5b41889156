//! The byte channel of a connection: a TLS stream, or a WebSocket.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The bytes that are read at once. Small, since every idle connection has a buffer of this size.
const READ_SIZE: usize = 512;

/// A byte channel to a client. What it carries has no regard for the borders of packets.
pub(crate) trait Channel: Send {
    /// Appends bytes that the client sent to a buffer. Returns how many; zero if the client closed the channel.
    fn receive(&mut self, buffer: &mut Vec<u8>) -> impl Future<Output = io::Result<usize>> + Send;

    fn send(&mut self, bytes: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// Announces that nothing more is sent.
    fn finish(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}

/// A stream as a channel.
pub(crate) struct StreamChannel<S>(pub(crate) S);

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Channel for StreamChannel<S> {
    async fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        buffer.reserve(READ_SIZE);
        self.0.read_buf(buffer).await
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await?;
        // TLS has a buffer of its own.
        self.0.flush().await
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}
