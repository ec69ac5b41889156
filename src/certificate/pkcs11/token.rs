//! Tokens: found by a URI, and logged in to.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
};

use cryptoki::{
    context::Pkcs11,
    error::{Error, RvError},
    mechanism::MechanismType,
    session::{Session, SessionState, UserType},
    slot::{Slot, TokenInfo},
    types::AuthPin,
};

use super::{
    Pkcs11Uri,
    error::{PinTries, TokenError, code},
    module,
};

/// A token that was found, and is not logged in to yet.
pub struct Token {
    module: Pkcs11,
    slot: Slot,
    info: TokenInfo,
    /// Whether this process has logged in already, for another key.
    is_logged_in: bool,
}

impl Token {
    /// Finds the token of a URI with the PKCS#11 module at that path. The attribute `module-path` of the URI is not used.
    ///
    /// # Errors
    /// Returns [`TokenError::Module`] if the module cannot be loaded, [`TokenError::NoToken`] or
    /// [`TokenError::SeveralTokens`] unless exactly one token has the attributes of the URI.
    pub fn find(uri: &Pkcs11Uri, module_path: &Path) -> Result<Self, TokenError> {
        let module = module::load(module_path)?;
        let failed = |error: &Error| TokenError::Module {
            path: module_path.to_owned(),
            reason: format!("its slots could not be listed: it reports {}", code(error)),
        };
        let mut tokens = Vec::new();
        for slot in module.get_slots_with_token().map_err(|error| failed(&error))? {
            match module.get_token_info(slot) {
                Ok(info) if info.token_initialized() => tokens.push((slot, info)),
                // An empty slot, or a token that was just removed. SoftHSM has a slot for the next token.
                _ => {}
            }
        }
        let matches = |(slot, info): &&(Slot, TokenInfo)| {
            let equal = |wanted: Option<&String>, found: &str| wanted.is_none_or(|wanted| wanted == found);
            equal(uri.token.as_ref(), info.label())
                && equal(uri.serial.as_ref(), info.serial_number())
                && equal(uri.manufacturer.as_ref(), info.manufacturer_id())
                && equal(uri.model.as_ref(), info.model())
                && uri.slot_id.is_none_or(|wanted| wanted == slot.id())
        };
        let found: Vec<_> = tokens.iter().filter(matches).cloned().collect();
        match <[_; 1]>::try_from(found) {
            Ok([(slot, info)]) => Ok(Self { is_logged_in: is_logged_in(&module, slot), module, slot, info }),
            Err(found) if found.is_empty() => {
                let present = if tokens.is_empty() { "none".to_owned() } else { list(&tokens) };
                Err(TokenError::NoToken { module: module_path.to_owned(), wanted: uri.wanted_token(), present })
            }
            Err(found) => Err(TokenError::SeveralTokens { wanted: uri.wanted_token(), found: list(&found) }),
        }
    }

    /// Returns the label of the token.
    #[must_use]
    pub fn label(&self) -> &str {
        self.info.label()
    }

    /// Returns whether a PIN is needed before private keys can be used. It is not if this process has a key of the token already.
    #[must_use]
    pub fn needs_pin(&self) -> bool {
        self.info.login_required() && !self.is_logged_in
    }

    /// Returns whether the PIN can be entered at the token itself, such as on a card reader with keys.
    #[must_use]
    pub fn has_pin_pad(&self) -> bool {
        self.info.protected_authentication_path()
    }

    /// Returns how many tries for the PIN are left.
    #[must_use]
    pub fn tries(&self) -> PinTries {
        tries(&self.info)
    }

    /// Logs in with a PIN; without one, lets the user enter it at the token if that is possible.
    ///
    /// A PIN is tried once. After a wrong one the token may have few tries left before it locks the PIN.
    ///
    /// # Errors
    /// Returns [`TokenError::WrongPin`], [`TokenError::PinLocked`], [`TokenError::PinNeeded`] or
    /// [`TokenError::PinUnusable`], and other errors if the token fails.
    pub fn log_in(self, pin: Option<&str>) -> Result<TokenSession, TokenError> {
        let label = self.label().to_owned();
        if self.info.user_pin_locked() {
            return Err(TokenError::PinLocked { token: label });
        }
        if self.info.login_required() && !self.info.user_pin_initialized() {
            return Err(TokenError::PinUnusable { token: label, reason: "it was never set" });
        }
        let session = self
            .module
            .open_ro_session(self.slot)
            .map_err(|error| TokenError::failed(&label, "open a session", &error))?;
        if self.needs_pin() {
            let pin = match pin {
                Some(pin) => Some(AuthPin::new(pin.into())),
                None if self.info.protected_authentication_path() => None,
                None => return Err(TokenError::PinNeeded { token: label }),
            };
            match session.login(UserType::User, pin.as_ref()) {
                // Another key of this process is in the same token.
                Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
                Err(error) => return Err(self.login_error(&error)),
            }
        }
        let mechanisms = self
            .module
            .get_mechanism_list(self.slot)
            .map_err(|error| TokenError::failed(&label, "list its mechanisms", &error))?;
        Ok(TokenSession(Arc::new(OpenToken {
            label,
            is_write_protected: self.info.write_protected(),
            mechanisms,
            sessions: Sessions::new(self.module, self.slot, session),
        })))
    }

    fn login_error(&self, error: &Error) -> TokenError {
        let token = self.label().to_owned();
        let Error::Pkcs11(reason, _) = error else { return TokenError::failed(&token, "log in", error) };
        match reason {
            RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => {
                let tries = self.module.get_token_info(self.slot).map_or(PinTries::Unknown, |info| tries(&info));
                TokenError::WrongPin { token, tries }
            }
            RvError::PinLocked => TokenError::PinLocked { token },
            RvError::PinExpired => TokenError::PinUnusable { token, reason: "it has expired and has to be changed" },
            RvError::UserPinNotInitialized => TokenError::PinUnusable { token, reason: "it was never set" },
            _ => TokenError::failed(&token, "log in", error),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("label", &self.label()).finish_non_exhaustive()
    }
}

/// Returns whether sessions of this process are logged in: all are, or none (PKCS#11 3.1 section 5.6.8).
fn is_logged_in(module: &Pkcs11, slot: Slot) -> bool {
    let state = module.open_ro_session(slot).and_then(|session| session.get_session_info());
    state.is_ok_and(|info| matches!(info.session_state(), SessionState::RoUser | SessionState::RwUser))
}

fn tries(info: &TokenInfo) -> PinTries {
    if info.user_pin_locked() {
        PinTries::None
    } else if info.user_pin_final_try() {
        PinTries::Last
    } else if info.user_pin_count_low() {
        PinTries::Fewer
    } else {
        PinTries::Unknown
    }
}

/// Lists tokens by label and serial number.
fn list(tokens: &[(Slot, TokenInfo)]) -> String {
    let token = |(_, info): &(Slot, TokenInfo)| format!("{:?} (serial number {})", info.label(), info.serial_number());
    tokens.iter().map(token).collect::<Vec<_>>().join(", ")
}

/// A token that is logged in to, until this and every key from it are dropped.
#[derive(Clone)]
pub struct TokenSession(pub(super) Arc<OpenToken>);

impl fmt::Debug for TokenSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSession").field("token", &self.0.label).finish_non_exhaustive()
    }
}

pub(super) struct OpenToken {
    pub(super) label: String,
    pub(super) is_write_protected: bool,
    pub(super) mechanisms: Vec<MechanismType>,
    pub(super) sessions: Sessions,
}

impl OpenToken {
    pub(super) fn failed(&self, doing: &'static str, error: &Error) -> TokenError {
        TokenError::failed(&self.label, doing, error)
    }

    /// Does something in a session that no other thread uses in the meantime.
    pub(super) fn with_session<T>(
        &self,
        doing: &'static str,
        operation: impl FnOnce(&Session) -> Result<T, Error>,
    ) -> Result<T, TokenError> {
        self.sessions.with(operation).map_err(|error| self.failed(doing, &error))
    }
}

/// The sessions of a token: one for each thread that signs at the same time, as long as the token has that many.
pub(super) struct Sessions {
    module: Pkcs11,
    slot: Slot,
    state: Mutex<State>,
    returned: Condvar,
}

struct State {
    free: Vec<Session>,
    open: usize,
}

impl Sessions {
    fn new(module: Pkcs11, slot: Slot, first: Session) -> Self {
        Self { module, slot, state: Mutex::new(State { free: vec![first], open: 1 }), returned: Condvar::new() }
    }

    /// Opens a session that can create objects.
    pub(super) fn open_to_write(&self) -> Result<Session, Error> {
        self.module.open_rw_session(self.slot)
    }

    fn with<T>(&self, operation: impl FnOnce(&Session) -> Result<T, Error>) -> Result<T, Error> {
        let session = self.take()?;
        let done = operation(&session);
        // A failed operation may be active still, but the login lasts as long as one session of the token is open.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if done.is_ok() || state.open == 1 {
            state.free.push(session);
        } else {
            state.open -= 1;
        }
        drop(state);
        self.returned.notify_one();
        done
    }

    fn take(&self) -> Result<Session, Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(session) = state.free.pop() {
                return Ok(session);
            }
            match self.module.open_ro_session(self.slot) {
                Ok(session) => {
                    state.open += 1;
                    return Ok(session);
                }
                // The token has no more sessions than those that other threads use.
                Err(Error::Pkcs11(RvError::SessionCount, _)) if state.open > 0 => {
                    state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Err(error) => return Err(error),
            }
        }
    }
}
