//! Who issued whom, by name.

use super::Certificate;

impl Certificate {
    /// Returns whether the issuer name of this certificate is the subject of another (RFC 5280 section 7.1).
    ///
    /// Names can repeat: only the signature proves who issued a certificate.
    #[must_use]
    pub fn names_issuer(&self, issuer: &Self) -> bool {
        self.issuer().matches(issuer.subject())
    }
}

/// Returns the index of the first certificate that is the issuer of none of the others, by name. The time is quadratic in
/// their number.
pub(crate) fn find_leaf(certificates: &[Certificate]) -> Option<usize> {
    let issued_none = |&leaf: &usize| {
        let mut others = certificates.iter().enumerate().filter(|&(index, _)| index != leaf);
        others.all(|(_, other)| !other.names_issuer(&certificates[leaf]))
    };
    (0..certificates.len()).find(issued_none)
}
