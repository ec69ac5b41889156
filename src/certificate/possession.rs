//! How possession of a private key is established.

/// How possession of a CA certificate's key is established.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Possession {
    /// By a proof that is still to be sent. The certificate is unverified until then.
    ToBeProven,
    /// By the caller's word. The service accepts the certificate as verified.
    Attested,
}
