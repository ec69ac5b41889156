//! Certificates and chains as a mutation finds them: fields in DER that can be replaced before anything is signed.

use super::{
    der::{
        GENERALIZED_TIME, PRINTABLE, UTC_TIME, UTF8, bits, boolean, explicit, flags, implicit, int, octets, oid, seq,
        set, string, tlv,
    },
    keys::{Key, P256, P384, P521, RSA, SHA2, Scheme, public_key, sign},
};

/// The moment at which chains are judged: 2026-06-01 00:00:00 UTC.
pub(super) const AT: i64 = 1_780_272_000;

/// A small generator of numbers, the same for the same seed (splitmix64).
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    pub(super) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// Changes an encoding, or its content.
type Finish = fn(Vec<u8>) -> Vec<u8>;

#[derive(Clone)]
pub(super) struct Extension {
    pub(super) oid: &'static str,
    /// The `BOOLEAN` as encoded; nothing for the default, false.
    pub(super) critical: Vec<u8>,
    pub(super) value: Vec<u8>,
}

impl Extension {
    pub(super) fn new(oid: &'static str, critical: bool, value: Vec<u8>) -> Self {
        Self { oid, critical: if critical { boolean(true) } else { Vec::new() }, value }
    }

    fn der(&self) -> Vec<u8> {
        seq(&[oid(self.oid), self.critical.clone(), octets(&self.value)])
    }
}

#[derive(Clone)]
pub(super) struct Cert {
    pub(super) version: Vec<u8>,
    /// The content of the `INTEGER`.
    pub(super) serial: Vec<u8>,
    pub(super) inner_algorithm: Vec<u8>,
    pub(super) outer_algorithm: Vec<u8>,
    pub(super) issuer: Vec<u8>,
    pub(super) not_before: Vec<u8>,
    pub(super) not_after: Vec<u8>,
    pub(super) subject: Vec<u8>,
    pub(super) public_key: Vec<u8>,
    /// What stands between the key and the extensions.
    pub(super) unique_ids: Vec<u8>,
    pub(super) extensions: Vec<Extension>,
    /// The whole field `extensions`, in place of the list.
    pub(super) raw_extensions: Option<Vec<u8>>,
    pub(super) signer: Key,
    pub(super) scheme: Scheme,
    /// What happens to the signature's bytes; gives the whole `BIT STRING`.
    pub(super) finish_signature: Finish,
    /// What happens to the content of the `TBSCertificate` before it is signed; gives the whole of it.
    pub(super) finish_tbs: Finish,
    /// What happens to the encoded certificate.
    pub(super) finish: Finish,
}

impl Cert {
    pub(super) fn der(&self) -> Vec<u8> {
        let extensions = self.raw_extensions.clone().unwrap_or_else(|| {
            if self.extensions.is_empty() {
                Vec::new()
            } else {
                explicit(3, &seq(&self.extensions.iter().map(Extension::der).collect::<Vec<_>>()))
            }
        });
        let tbs = [
            self.version.clone(),
            tlv(0x02, &self.serial),
            self.inner_algorithm.clone(),
            self.issuer.clone(),
            seq(&[&self.not_before, &self.not_after]),
            self.subject.clone(),
            self.public_key.clone(),
            self.unique_ids.clone(),
            extensions,
        ]
        .concat();
        let tbs = (self.finish_tbs)(tbs);
        let signature = (self.finish_signature)(sign(self.signer, self.scheme, &tbs));
        (self.finish)(seq(&[tbs, self.outer_algorithm.clone(), signature]))
    }

    pub(super) fn sign_with(&mut self, scheme: Scheme) {
        self.scheme = scheme;
        self.inner_algorithm = scheme.algorithm();
        self.outer_algorithm = scheme.algorithm();
    }

    pub(super) fn extension(&mut self, oid: &str) -> Option<&mut Extension> {
        self.extensions.iter_mut().find(|extension| extension.oid == oid)
    }

    pub(super) fn remove(&mut self, oid: &str) {
        self.extensions.retain(|extension| extension.oid != oid);
    }

    /// Puts an extension in the place of the one with its identifier, or at the end.
    pub(super) fn set(&mut self, extension: Extension) {
        match self.extension(extension.oid) {
            Some(existing) => *existing = extension,
            None => self.extensions.push(extension),
        }
    }
}

pub(super) const BASIC_CONSTRAINTS: &str = "2.5.29.19";
pub(super) const KEY_USAGE: &str = "2.5.29.15";
pub(super) const EXTENDED_KEY_USAGE: &str = "2.5.29.37";
pub(super) const SUBJECT_KEY_ID: &str = "2.5.29.14";
pub(super) const AUTHORITY_KEY_ID: &str = "2.5.29.35";
pub(super) const SUBJECT_ALT_NAME: &str = "2.5.29.17";
pub(super) const NAME_CONSTRAINTS: &str = "2.5.29.30";

pub(super) const CLIENT_AUTH: &str = "1.3.6.1.5.5.7.3.2";
pub(super) const SERVER_AUTH: &str = "1.3.6.1.5.5.7.3.1";

pub(super) const CN: &str = "2.5.4.3";
pub(super) const O: &str = "2.5.4.10";
pub(super) const OU: &str = "2.5.4.11";
pub(super) const C: &str = "2.5.4.6";

/// A relative distinguished name of one attribute.
pub(super) fn rdn(attribute: &str, tag: u8, text: &str) -> Vec<u8> {
    set(&[seq(&[oid(attribute), string(tag, text)])])
}

/// `C=XX, O=Lab, CN=…`
pub(super) fn name(common_name: &str) -> Vec<u8> {
    seq(&[rdn(C, PRINTABLE, "XX"), rdn(O, UTF8, "Lab"), rdn(CN, UTF8, common_name)])
}

pub(super) fn basic_constraints(path_length: Option<u64>) -> Extension {
    let path_length = path_length.map(int).unwrap_or_default();
    Extension::new(BASIC_CONSTRAINTS, true, seq(&[boolean(true), path_length]))
}

pub(super) fn key_usage(numbers: &[u8]) -> Extension {
    Extension::new(KEY_USAGE, true, flags(numbers))
}

pub(super) fn extended_key_usage(usages: &[&str]) -> Extension {
    Extension::new(EXTENDED_KEY_USAGE, false, seq(&usages.iter().map(|usage| oid(usage)).collect::<Vec<_>>()))
}

/// The key identifier that the generator gives a key: any value does.
pub(super) fn key_id(key: Key) -> Vec<u8> {
    key.bytes().cycle().take(20).collect()
}

pub(super) fn subject_key_id(key: Key) -> Extension {
    Extension::new(SUBJECT_KEY_ID, false, octets(&key_id(key)))
}

pub(super) fn authority_key_id(key: Key) -> Extension {
    Extension::new(AUTHORITY_KEY_ID, false, seq(&[implicit(0, &key_id(key))]))
}

pub(super) fn utc(text: &str) -> Vec<u8> {
    string(UTC_TIME, text)
}

pub(super) fn generalized(text: &str) -> Vec<u8> {
    string(GENERALIZED_TIME, text)
}

/// A chain: the device's certificate first, the enrolled one last.
#[derive(Clone)]
pub(super) struct Chain {
    pub(super) certs: Vec<Cert>,
    /// The key of each certificate.
    pub(super) keys: Vec<Key>,
    /// Certificates that are presented besides the chain, before or after its own.
    pub(super) extra: Vec<Cert>,
    pub(super) extra_first: bool,
    /// Certificates of the chain that are not presented, by index.
    pub(super) withheld: Vec<usize>,
    /// What is enrolled, where it is not the chain's last certificate.
    pub(super) enrolled: Option<Cert>,
}

/// What is handed to a validator.
pub(super) struct Presented {
    /// The device's certificate first.
    pub(super) certificates: Vec<Vec<u8>>,
    pub(super) enrolled: Vec<u8>,
}

impl Chain {
    /// A good chain with so many certificates, of random algorithms and of random optional fields.
    pub(super) fn random(length: usize, rng: &mut Rng) -> Self {
        // The last key of each kind is left for mutations.
        let mut kinds = [&P256[..3], &P256[..3], &P384[..2], &P521[..2], &RSA[..3]].map(<[Key]>::to_vec);
        let mut keys: Vec<Key> = Vec::new();
        while keys.len() < length {
            let kind = &mut kinds[rng.below(5)];
            if !kind.is_empty() {
                let key = kind.swap_remove(rng.below(kind.len()));
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        Self::of_keys(keys, rng)
    }

    /// A good chain of certificates with these keys.
    pub(super) fn of_keys(keys: Vec<Key>, rng: &mut Rng) -> Self {
        let last = keys.len() - 1;
        // A chain may be cut off above: the enrolled certificate is an intermediate one then.
        let cut_off = rng.one_in(4);
        let certs = (0..=last)
            .map(|at| {
                let issuer = (at + 1).min(last);
                let signer = if at == last && cut_off { "p256-5" } else { keys[issuer] };
                let scheme = random_scheme(signer, rng);
                let mut cert = Cert {
                    version: explicit(0, &int(2)),
                    serial: [&[0x21], &rng.next().to_be_bytes()[..]].concat(),
                    inner_algorithm: scheme.algorithm(),
                    outer_algorithm: scheme.algorithm(),
                    issuer: if at == last && cut_off { name("Above") } else { name(&common_name(issuer)) },
                    not_before: utc("250101000000Z"),
                    not_after: if rng.one_in(3) { generalized("20600101000000Z") } else { utc("350101000000Z") },
                    subject: name(&common_name(at)),
                    public_key: public_key(keys[at]),
                    unique_ids: Vec::new(),
                    extensions: Vec::new(),
                    raw_extensions: None,
                    signer,
                    scheme,
                    finish_signature: |signature| bits(0, &signature),
                    finish_tbs: |content| tlv(0x30, &content),
                    finish: |der| der,
                };
                if at == 0 {
                    cert.set(key_usage(&[0]));
                    match rng.below(3) {
                        0 => cert.set(extended_key_usage(&[CLIENT_AUTH])),
                        1 => cert.set(extended_key_usage(&[SERVER_AUTH, CLIENT_AUTH])),
                        _ => {}
                    }
                    if rng.one_in(2) {
                        cert.set(Extension::new(BASIC_CONSTRAINTS, true, seq::<Vec<u8>>(&[])));
                    }
                } else {
                    cert.set(basic_constraints(rng.one_in(4).then_some(at as u64 - 1)));
                    cert.set(key_usage(&[5, 6]));
                }
                cert.set(subject_key_id(keys[at]));
                cert.set(authority_key_id(signer));
                cert
            })
            .collect();
        Self { certs, keys, extra: Vec::new(), extra_first: false, withheld: Vec::new(), enrolled: None }
    }

    pub(super) fn last(&self) -> usize {
        self.certs.len() - 1
    }

    /// Gives a certificate another key: what is below is signed with it.
    pub(super) fn set_key(&mut self, at: usize, key: Key) {
        let self_signed = at == self.last() && self.certs[at].signer == self.keys[at];
        self.keys[at] = key;
        self.certs[at].public_key = public_key(key);
        self.certs[at].set(subject_key_id(key));
        let below = at.checked_sub(1).into_iter().chain(self_signed.then_some(at));
        for signed in below {
            self.certs[signed].signer = key;
            self.certs[signed].sign_with(Scheme::usual(key));
            self.certs[signed].set(authority_key_id(key));
        }
    }

    /// Gives a certificate another subject: what is below is issued by it.
    pub(super) fn set_subject(&mut self, at: usize, subject: Vec<u8>) {
        if at == self.last() && self.certs[at].issuer == self.certs[at].subject {
            self.certs[at].issuer.clone_from(&subject);
        }
        if at > 0 {
            self.certs[at - 1].issuer.clone_from(&subject);
        }
        self.certs[at].subject = subject;
    }

    pub(super) fn present(&self) -> Presented {
        let last = self.last();
        let shown = (0..last).filter(|at| !self.withheld.contains(at)).map(|at| self.certs[at].der());
        let mut certificates: Vec<_> = shown.collect();
        let extra = self.extra.iter().map(Cert::der);
        if self.extra_first {
            certificates.splice(1..1, extra);
        } else {
            certificates.extend(extra);
        }
        Presented { certificates, enrolled: self.enrolled.as_ref().unwrap_or(&self.certs[last]).der() }
    }
}

pub(super) fn common_name(at: usize) -> String {
    if at == 0 { "device-01".to_owned() } else { format!("CA {at}") }
}

fn random_scheme(signer: Key, rng: &mut Rng) -> Scheme {
    if rng.one_in(2) {
        return Scheme::usual(signer);
    }
    match Scheme::usual(signer) {
        Scheme::Ecdsa(_) => Scheme::Ecdsa(rng.pick(&SHA2)),
        Scheme::RsaPkcs1(_) if rng.one_in(2) => Scheme::RsaPkcs1(rng.pick(&SHA2)),
        Scheme::RsaPkcs1(_) => Scheme::pss(rng.pick(&SHA2)),
        other => other,
    }
}
