//! Encrypted private keys: PKCS#8 (RFC 5958 section 3), and the traditional encryption of PEM files (RFC 1421 with the key
//! derivation of OpenSSL).

use aes::{Aes128, Aes192, Aes256};
use cbc::{
    Decryptor,
    cipher::{BlockCipherDecrypt, BlockModeDecrypt, KeyInit, KeyIvInit, block_padding::Pkcs7},
};
use des::{Des, TdesEde3};
use md5::{Digest, Md5};
use zeroize::Zeroizing;

use super::{
    KeyError,
    der::{DerReader, OCTET_STRING, SEQUENCE},
    hex,
    pbe::{self, Budget, Password, PbeError},
    read::Encryption,
};

/// Decrypts an `EncryptedPrivateKeyInfo`.
pub(super) fn decrypt_pkcs8(der: &[u8], password: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let damaged = || KeyError::Damaged("the structure of the encrypted key does not decode".to_owned());
    let mut info = DerReader::new(der).inside(SEQUENCE).ok_or_else(damaged)?;
    let mut algorithm = info;
    info.element().ok_or_else(damaged)?;
    let encrypted = info.content(OCTET_STRING).ok_or_else(damaged)?;
    let decrypted = pbe::decrypt(&mut algorithm, encrypted, &Password::new(password), &mut Budget::new());
    decrypted.map_err(|error| match error {
        PbeError::Password => KeyError::WrongPassword,
        PbeError::Unsupported(name) => KeyError::Encryption(name),
        PbeError::Iterations(count) => KeyError::Rejected(format!(
            "its encryption asks for {count} iterations of key derivation, more than the limit of {}",
            pbe::MAX_ITERATIONS
        )),
        PbeError::Damaged(what) => KeyError::Damaged(format!("{what} does not decode")),
    })
}

/// Decrypts the content of a PEM section with the headers `Proc-Type: 4,ENCRYPTED` and `DEK-Info`.
pub(super) fn decrypt_pem(
    encryption: &Encryption,
    encrypted: &[u8],
    password: &str,
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let (cipher, vector) = encryption.dek_info.split_once(',').unwrap_or((&encryption.dek_info, ""));
    let key_length = match cipher {
        "DES-CBC" => 8,
        "AES-128-CBC" => 16,
        "AES-192-CBC" | "DES-EDE3-CBC" => 24,
        "AES-256-CBC" => 32,
        "" => return Err(KeyError::Damaged("its DEK-Info header is missing".to_owned())),
        other => return Err(KeyError::Encryption(other.chars().filter(char::is_ascii_graphic).take(40).collect())),
    };
    let vector = vector.trim().chars().map(hex::digit).collect::<Option<Vec<u8>>>();
    let vector = vector
        .and_then(|digits| hex::join_digits(&digits))
        .ok_or_else(|| KeyError::Damaged("its DEK-Info header is not hexadecimal".to_owned()))?;
    let salt = vector
        .get(..8)
        .ok_or_else(|| KeyError::Damaged("the vector in its DEK-Info header is too short".to_owned()))?;
    let key = bytes_to_key(password.as_bytes(), salt, key_length);
    match cipher {
        "DES-CBC" => decrypt::<Des>(&key, &vector, encrypted),
        "AES-128-CBC" => decrypt::<Aes128>(&key, &vector, encrypted),
        "AES-192-CBC" => decrypt::<Aes192>(&key, &vector, encrypted),
        "AES-256-CBC" => decrypt::<Aes256>(&key, &vector, encrypted),
        _ => decrypt::<TdesEde3>(&key, &vector, encrypted),
    }
}

fn decrypt<C>(key: &[u8], vector: &[u8], encrypted: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError>
where
    C: BlockCipherDecrypt + KeyInit,
{
    let cipher = Decryptor::<C>::new_from_slices(key, vector)
        .map_err(|_| KeyError::Damaged("the vector in its DEK-Info header has the wrong length".to_owned()))?;
    let mut data = Zeroizing::new(encrypted.to_vec());
    let length = cipher.decrypt_padded::<Pkcs7>(&mut data).map_err(|_| KeyError::WrongPassword)?.len();
    data.truncate(length);
    Ok(data)
}

/// Derives a key as `EVP_BytesToKey` of OpenSSL does with MD5 and one iteration: each block is the hash of the previous
/// block, the password and the salt.
fn bytes_to_key(password: &[u8], salt: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(Vec::with_capacity(length + 16));
    let mut block = Zeroizing::new([0; 16]);
    while key.len() < length {
        let mut hash = Md5::new();
        if !key.is_empty() {
            hash.update(*block);
        }
        hash.update(password);
        hash.update(salt);
        *block = hash.finalize().into();
        key.extend_from_slice(&*block);
    }
    key.truncate(length);
    key
}
