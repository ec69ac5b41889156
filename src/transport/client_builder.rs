//! What the clients of all REST APIs and their builders share.

/// Defines `ClientBuilder` for a `Client` that has the fields `rest`, `endpoint` and `version`, with the traits of both.
/// The texts document what differs: the authorization, the version, the rate, and the errors of `build`.
macro_rules! client_builder {
    (
        profile: $profile:expr,
        version: $version:ty, $version_text:expr,
        authorization_doc: $authorization_doc:literal,
        version_doc: $version_doc:literal,
        rate_doc: $rate_doc:literal,
        shared: $shared:literal,
    ) => {
        impl std::fmt::Debug for Client {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct("Client")
                    .field("endpoint", &self.endpoint)
                    .field("version", &self.version)
                    .field("authorization", self.rest.authorization())
                    .finish_non_exhaustive()
            }
        }

        /// Builds a [`Client`].
        #[must_use]
        pub struct ClientBuilder {
            endpoint: Endpoint,
            version: $version,
            authorization: Option<$crate::transport::Authorization>,
            connection: $crate::transport::ConnectionOptions,
        }

        impl ClientBuilder {
            fn new(endpoint: Endpoint, version: $version) -> Self {
                let connection = $crate::transport::ConnectionOptions::default();
                Self { endpoint, version, authorization: None, connection }
            }

            #[doc = $authorization_doc]
            pub fn authorization(mut self, authorization: $crate::transport::Authorization) -> Self {
                self.authorization = Some(authorization);
                self
            }

            #[doc = $version_doc]
            pub fn api_version(mut self, version: $version) -> Self {
                self.version = version;
                self
            }

            $crate::transport::connection_setters!();

            #[doc = $rate_doc]
            ///
            #[doc = concat!(
                "Requests are evenly spaced. When the service throttles them (429) because other clients use the ", $shared,
                " too, the rate is halved, then rises again within 30 seconds."
            )]
            pub fn rate(mut self, per_second: std::num::NonZeroU32) -> Self {
                self.connection.rate = Some(per_second);
                self
            }

            /// Builds the client. Nothing is sent.
            ///
            /// # Errors
            /// [`BuildError`](crate::transport::BuildError) if no authorization was given, if it has expired or belongs
            /// to another host, or if TLS cannot be set up.
            pub fn build(self) -> Result<Client, $crate::transport::BuildError> {
                let Self { endpoint, version, authorization, connection } = self;
                let authorization = authorization.ok_or($crate::transport::BuildError::NoAuthorization)?;
                let address = endpoint.address().clone();
                let text = ($version_text)(&version);
                let rest = $crate::transport::RestClient::new($profile, address, authorization, text, connection)?;
                Ok(Client { rest, endpoint, version })
            }
        }

        impl std::fmt::Debug for ClientBuilder {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct("ClientBuilder")
                    .field("endpoint", &self.endpoint)
                    .field("version", &self.version)
                    .field("authorization", &self.authorization)
                    .finish_non_exhaustive()
            }
        }
    };
}
pub(crate) use client_builder;
