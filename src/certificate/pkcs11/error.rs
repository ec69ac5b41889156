//! Why a key in a token cannot be used.

use std::path::PathBuf;

use cryptoki::error::{Error, RvError};

/// The reason why a private key in a PKCS#11 token cannot be used. No message holds a PIN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The module cannot be loaded.
    #[error("the PKCS#11 module {} could not be loaded: {reason}", .path.display())]
    Module {
        /// The path of the module.
        path: PathBuf,
        /// Why it cannot be loaded.
        reason: String,
    },
    /// No token has the attributes of the URI.
    #[error("there is no token{wanted}: the PKCS#11 module {} has {present}", .module.display())]
    NoToken {
        /// The path of the module.
        module: PathBuf,
        /// The wanted token.
        wanted: String,
        /// The tokens that are present.
        present: String,
    },
    /// Several tokens have the attributes of the URI.
    #[error("there are several tokens{wanted}: {found}")]
    SeveralTokens {
        /// The wanted token.
        wanted: String,
        /// The tokens that were found.
        found: String,
    },
    /// The token takes a PIN, and there is none.
    #[error("the token {token:?} takes a PIN")]
    PinNeeded {
        /// The label of the token.
        token: String,
    },
    /// The PIN is wrong.
    #[error("the PIN of the token {token:?} is wrong{}", tries_left(*.tries))]
    WrongPin {
        /// The label of the token.
        token: String,
        /// How many tries the token has left, as far as it tells.
        tries: PinTries,
    },
    /// The PIN is locked after too many wrong ones.
    #[error("the PIN of the token {token:?} is locked, because a wrong one was given too often")]
    PinLocked {
        /// The label of the token.
        token: String,
    },
    /// The user of the token has no PIN yet, or has to change it.
    #[error("the PIN of the token {token:?} is not usable: {reason}")]
    PinUnusable {
        /// The label of the token.
        token: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No private key has the attributes of the URI.
    #[error("the token {token:?} has no private key {wanted}; it has {present}")]
    NoKey {
        /// The label of the token.
        token: String,
        /// The wanted key.
        wanted: String,
        /// The private keys of the token.
        present: String,
    },
    /// Several private keys have the attributes of the URI.
    #[error("the token {token:?} has several private keys {wanted}: {found}")]
    SeveralKeys {
        /// The label of the token.
        token: String,
        /// The wanted key.
        wanted: String,
        /// The keys that were found.
        found: String,
    },
    /// A new key would have the label or ID of an existing object.
    #[error("the token {token:?} already has the key {key}, and nothing was created")]
    KeyExists {
        /// The label of the token.
        token: String,
        /// The existing key.
        key: String,
    },
    /// A new key needs a label.
    #[error("a new key in a token needs a label: add object=LABEL to the PKCS#11 URI")]
    NoLabel,
    /// The token cannot be written to.
    #[error("the token {token:?} is write-protected, so no key can be created in it")]
    WriteProtected {
        /// The label of the token.
        token: String,
    },
    /// The key is of a kind that cannot sign certificates.
    #[error(
        "the key {key} is of the kind {kind}, which is not supported: use RSA of 2048 to 8192 bits, or EC on P-256, P-384 or P-521"
    )]
    Unsupported {
        /// The key.
        key: String,
        /// The kind of the key.
        kind: String,
    },
    /// The key may not sign.
    #[error("the key {key} may not sign: its attribute CKA_SIGN is false")]
    NotForSigning {
        /// The key.
        key: String,
    },
    /// The token asks for the PIN before each signature.
    #[error("the key {key} takes the PIN for each signature (CKA_ALWAYS_AUTHENTICATE), which is not supported")]
    PinForEachUse {
        /// The key.
        key: String,
    },
    /// The key can be read from the token.
    #[error("the key {key} can be read from the token: CKA_SENSITIVE is not true, or CKA_EXTRACTABLE not false")]
    Extractable {
        /// The key.
        key: String,
    },
    /// The token created a key that cannot be used. It stays in the token.
    #[error("the key {key} was created in the token {token:?} and stays there, but cannot be used: {error}")]
    CreatedUnusable {
        /// The label of the token.
        token: String,
        /// The key.
        key: String,
        /// Why it cannot be used.
        error: Box<TokenError>,
    },
    /// The token does not have the public key.
    #[error(
        "the token {token:?} has no public key that belongs to the private key {key}: neither with its ID nor in its attributes"
    )]
    NoPublicKey {
        /// The label of the token.
        token: String,
        /// The private key.
        key: String,
    },
    /// The token has no mechanism for signatures with the key.
    #[error("the token {token:?} has no mechanism for signatures with the key {key}: {wanted} is needed")]
    NoMechanism {
        /// The label of the token.
        token: String,
        /// The key.
        key: String,
        /// The names of the mechanisms that would do.
        wanted: &'static str,
    },
    /// The token made a signature that its public key does not verify.
    #[error(
        "the token {token:?} made a signature with the key {key} that its public key does not verify: nothing was issued with it"
    )]
    WrongSignature {
        /// The label of the token.
        token: String,
        /// The key.
        key: String,
    },
    /// The token was removed, or its session ended.
    #[error("the token {token:?} does not answer any more ({code}): it was removed, or its session was closed")]
    Removed {
        /// The label of the token.
        token: String,
        /// The name of the error in the PKCS#11 standard.
        code: String,
    },
    /// The module or the token failed in another way.
    #[error("the token {token:?} could not {doing}: its PKCS#11 module reports {code}")]
    Failed {
        /// The label of the token.
        token: String,
        /// What was tried.
        doing: &'static str,
        /// The name of the error in the PKCS#11 standard.
        code: String,
    },
}

/// How many tries for the PIN a token has left, as far as it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PinTries {
    /// The token does not tell.
    Unknown,
    /// A wrong PIN was given since the last right one (`CKF_USER_PIN_COUNT_LOW`).
    Fewer,
    /// The next wrong PIN locks it (`CKF_USER_PIN_FINAL_TRY`).
    Last,
    /// It is locked (`CKF_USER_PIN_LOCKED`).
    None,
}

fn tries_left(tries: PinTries) -> &'static str {
    match tries {
        PinTries::Unknown => "",
        PinTries::Fewer => ", and the token has fewer tries left",
        PinTries::Last => ": the next wrong one locks it",
        PinTries::None => ", and is locked now",
    }
}

impl TokenError {
    /// Describes a failed operation.
    pub(super) fn failed(token: &str, doing: &'static str, error: &Error) -> Self {
        let (token, code) = (token.to_owned(), code(error));
        match error {
            Error::Pkcs11(
                RvError::DeviceRemoved
                | RvError::TokenNotPresent
                | RvError::TokenNotRecognized
                | RvError::SessionClosed
                | RvError::SessionHandleInvalid
                | RvError::UserNotLoggedIn
                | RvError::SlotIdInvalid
                | RvError::KeyHandleInvalid
                | RvError::ObjectHandleInvalid,
                _,
            ) => Self::Removed { token, code },
            _ => Self::Failed { token, doing, code },
        }
    }
}

/// Returns the name of an error in the PKCS#11 standard, which manuals of tokens list.
pub(super) fn code(error: &Error) -> String {
    match error {
        Error::Pkcs11(RvError::VendorDefined(code) | RvError::UnknownErrorCode(code), _) => {
            format!("the error {code:#x} of its vendor")
        }
        Error::Pkcs11(error, _) => {
            let mut name = "CKR".to_owned();
            for character in format!("{error:?}").chars() {
                if character.is_ascii_uppercase() {
                    name.push('_');
                }
                name.push(character.to_ascii_uppercase());
            }
            name
        }
        Error::NullFunctionPointer | Error::NotSupported => "CKR_FUNCTION_NOT_SUPPORTED".to_owned(),
        _ => "an answer that is not valid".to_owned(),
    }
}
