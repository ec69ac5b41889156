//! What the address types of all services share. Each service has a type of its own, so that none is given to the client of
//! another.

/// Implements the methods and traits of an endpoint, a tuple struct of an [`Address`](super::Address), but for parsing.
macro_rules! endpoint {
    ($type:ident) => {
        impl $type {
            /// Returns the endpoint as text, without a trailing slash.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }

            /// Returns the host, with the port unless it is the scheme's default.
            #[must_use]
            pub fn host(&self) -> &str {
                self.0.host()
            }

            /// Returns whether the endpoint is on this machine: `localhost`, `127.0.0.0/8` or `::1`.
            #[must_use]
            pub fn is_loopback(&self) -> bool {
                self.0.is_loopback()
            }

            /// Returns whether requests are encrypted.
            #[must_use]
            pub fn is_https(&self) -> bool {
                self.0.is_https()
            }

            pub(super) fn address(&self) -> &$crate::transport::Address {
                &self.0
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self.as_str())
            }
        }
    };
}
pub(crate) use endpoint;
