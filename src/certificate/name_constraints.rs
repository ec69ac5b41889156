//! Checks of names against name constraints (RFC 5280 section 4.2.1.10).
//!
//! Constraints apply to the subject (`directoryName`), to mail addresses in the subject (`rfc822Name`), and to the subject
//! alternative names. A common name is not treated as a DNS name: in enrollment it is the ID of a device. If a constraint
//! applies to a name of its form but the two cannot be compared, the certificate is refused.

use super::{Certificate, GeneralName, GeneralSubtree, Name, NameConstraints};

/// The highest number of comparisons for one certificate under one CA. It bounds the work for long lists.
const MAX_COMPARISONS: usize = 1 << 18;

/// `id-on-SmtpUTF8Mailbox`, an `otherName` for mail addresses, which the constraints for mail addresses apply to (RFC 9598
/// section 6).
const SMTP_UTF8_MAILBOX: &str = "1.3.6.1.5.5.7.8.9";

/// How a name violates constraints. Each variant holds the name as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Violation {
    /// The name is in none of the permitted subtrees of its form.
    NotPermitted(String),
    /// The name is in an excluded subtree.
    Excluded(String),
    /// The name cannot be compared with the constraints of its form.
    Incomparable(String),
}

/// The error for two names of one form that cannot be compared.
struct Incomparable;

/// Checks the names of a certificate against the constraints of one CA above it.
pub(super) fn check(constraints: &NameConstraints, certificate: &Certificate) -> Result<(), Violation> {
    let subject = certificate.subject();
    let mut names: Vec<GeneralName> = certificate.subject_alternative_names().unwrap_or_default().to_vec();
    if !subject.is_empty() {
        names.push(GeneralName::Directory(subject.clone()));
    }
    let constrains_mail = all(constraints).any(|subtree| matches!(subtree.base, GeneralName::Email(_)));
    for address in subject.email_addresses() {
        match address {
            Some(address) => names.push(GeneralName::Email(address)),
            None if constrains_mail => return Err(Violation::Incomparable(format!("the mail address in {subject}"))),
            None => {}
        }
    }
    if names.len().saturating_mul(all(constraints).count()) > MAX_COMPARISONS {
        return Err(Violation::Incomparable(format!("one of its {} names", names.len())));
    }
    names.iter().try_for_each(|name| check_name(constraints, name))
}

fn all(constraints: &NameConstraints) -> impl Iterator<Item = &GeneralSubtree> {
    constraints.permitted.iter().chain(&constraints.excluded)
}

fn check_name(constraints: &NameConstraints, name: &GeneralName) -> Result<(), Violation> {
    let incomparable = |_: Incomparable| Violation::Incomparable(name.to_string());
    for subtree in constraints.excluded.iter().filter(|subtree| is_of_same_form(&subtree.base, name)) {
        if lies_in(name, subtree).map_err(incomparable)? || covers_excluded(name, &subtree.base) {
            return Err(Violation::Excluded(name.to_string()));
        }
    }
    let mut permitted = None;
    for subtree in constraints.permitted.iter().filter(|subtree| is_of_same_form(&subtree.base, name)) {
        let lies_in = lies_in(name, subtree).map_err(incomparable)?;
        *permitted.get_or_insert(false) |= lies_in;
    }
    if permitted == Some(false) { Err(Violation::NotPermitted(name.to_string())) } else { Ok(()) }
}

fn is_of_same_form(base: &GeneralName, name: &GeneralName) -> bool {
    use GeneralName::{Directory, Dns, EdiParty, Email, IpAddress, Other, RegisteredId, Uri, X400Address};
    match (base, name) {
        (Other { type_id: base, .. }, Other { type_id, .. }) => base == type_id,
        (Email(_), Other { type_id, .. }) => type_id == SMTP_UTF8_MAILBOX,
        (Email(_), Email(_))
        | (Dns(_), Dns(_))
        | (X400Address, X400Address)
        | (Directory(_), Directory(_))
        | (EdiParty, EdiParty)
        | (Uri(_), Uri(_))
        | (IpAddress(_), IpAddress(_))
        | (RegisteredId(_), RegisteredId(_)) => true,
        _ => false,
    }
}

/// Returns whether a name is in a subtree of its form.
fn lies_in(name: &GeneralName, subtree: &GeneralSubtree) -> Result<bool, Incomparable> {
    if subtree.has_distances {
        return Err(Incomparable);
    }
    match (name, &subtree.base) {
        (GeneralName::Directory(name), GeneralName::Directory(base)) => Ok(Name::is_within(name, base)),
        (GeneralName::Dns(name), GeneralName::Dns(base)) => dns_lies_in(name, base),
        (GeneralName::Email(address), GeneralName::Email(base)) => email_lies_in(address, base),
        (GeneralName::Uri(uri), GeneralName::Uri(base)) => uri_lies_in(uri, base),
        (GeneralName::IpAddress(address), GeneralName::IpAddress(base)) => address_lies_in(address, base),
        _ => Err(Incomparable),
    }
}

/// Returns whether a DNS name with a wildcard covers names in an excluded subtree, as `*.example.com` covers
/// `mail.example.com`.
fn covers_excluded(name: &GeneralName, base: &GeneralName) -> bool {
    let (GeneralName::Dns(name), GeneralName::Dns(base)) = (name, base) else { return false };
    let (name, base) = (without_root(name), without_root(base));
    match (name.strip_prefix("*."), base.split_once('.')) {
        (Some(parent), Some((label, base_parent))) => !label.is_empty() && parent.eq_ignore_ascii_case(base_parent),
        _ => false,
    }
}

/// Returns whether a DNS name satisfies a constraint: "Any DNS name that can be constructed by simply adding zero or more
/// labels to the left-hand side of the name satisfies the name constraint." A leading dot, which some CAs write, requires at
/// least one label.
fn dns_lies_in(name: &str, base: &str) -> Result<bool, Incomparable> {
    let name = without_root(name);
    let base = without_root(base);
    if !is_host(name.strip_prefix("*.").unwrap_or(name)) {
        return Err(Incomparable);
    }
    match base.strip_prefix('.') {
        _ if base.is_empty() => Ok(true),
        Some(domain) if is_host(domain) => Ok(is_subdomain(name, domain)),
        None if is_host(base) => Ok(name.eq_ignore_ascii_case(base) || is_subdomain(name, base)),
        _ => Err(Incomparable),
    }
}

/// Returns whether a mail address satisfies a constraint: a mailbox, all mailboxes of a host, or, with a leading dot, those
/// of all hosts in a domain.
fn email_lies_in(address: &str, base: &str) -> Result<bool, Incomparable> {
    let (local, host) = mailbox(address)?;
    if base.contains('@') {
        let (base_local, base_host) = mailbox(base)?;
        let quoted = local.starts_with('"') || base_local.starts_with('"');
        return match host.eq_ignore_ascii_case(base_host) {
            // A quoted local part can be written in several ways.
            true if quoted => Err(Incomparable),
            same_host => Ok(same_host && local == base_local),
        };
    }
    host_lies_in(host, base)
}

fn mailbox(address: &str) -> Result<(&str, &str), Incomparable> {
    let (local, host) = address.rsplit_once('@').ok_or(Incomparable)?;
    let host = without_root(host);
    let readable = !local.is_empty() && local.bytes().all(|octet| octet.is_ascii_graphic()) && is_host(host);
    if readable { Ok((local, host)) } else { Err(Incomparable) }
}

/// Returns whether a URI satisfies a constraint: "The constraint applies to the host part of the name." A URI without a
/// domain name as its host is refused.
fn uri_lies_in(uri: &str, base: &str) -> Result<bool, Incomparable> {
    let (scheme, rest) = uri.split_once("://").ok_or(Incomparable)?;
    if scheme.is_empty() || !scheme.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"+-.".contains(&octet)) {
        return Err(Incomparable);
    }
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.split_once(':') {
        Some((host, port)) if port.bytes().all(|octet| octet.is_ascii_digit()) => host,
        Some(_) => return Err(Incomparable),
        None => host,
    };
    let host = without_root(host);
    let is_address = host.rsplit('.').next().is_some_and(|label| label.bytes().all(|octet| octet.is_ascii_digit()));
    if is_address || !is_host(host) {
        return Err(Incomparable);
    }
    host_lies_in(host, base)
}

/// Returns whether a host satisfies a constraint: one host, or, with a leading dot, all hosts in a domain.
fn host_lies_in(host: &str, base: &str) -> Result<bool, Incomparable> {
    let base = without_root(base);
    match base.strip_prefix('.') {
        Some(domain) if is_host(domain) => Ok(is_subdomain(host, domain)),
        None if is_host(base) => Ok(host.eq_ignore_ascii_case(base)),
        _ => Err(Incomparable),
    }
}

/// Returns whether an address satisfies a constraint: an address, then a mask of the same length, which is ones followed
/// by zeros.
fn address_lies_in(address: &[u8], base: &[u8]) -> Result<bool, Incomparable> {
    if !matches!((address.len(), base.len()), (4 | 16, 8 | 32)) {
        return Err(Incomparable);
    }
    let (network, mask) = base.split_at(base.len() / 2);
    let ones = mask.iter().take_while(|&&octet| octet == 0xff).count();
    let is_prefix = match mask[ones..].split_first() {
        Some((last, rest)) => last.leading_ones() == last.count_ones() && rest.iter().all(|&octet| octet == 0),
        None => true,
    };
    if !is_prefix {
        return Err(Incomparable);
    }
    // Addresses of the other protocol have the same form, and are outside.
    Ok(address.len() == network.len()
        && address.iter().zip(network).zip(mask).all(|((address, network), mask)| (address ^ network) & mask == 0))
}

/// Removes the trailing dot, which is the root of the DNS.
fn without_root(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Returns whether a name is a valid host name. Underscores are allowed, since they occur.
fn is_host(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_')
        })
}

/// Returns whether a name is a domain with labels added on the left.
fn is_subdomain(name: &str, domain: &str) -> bool {
    let (name, domain) = (name.as_bytes(), domain.as_bytes());
    name.len()
        .checked_sub(domain.len() + 1)
        .is_some_and(|dot| dot > 0 && name[dot] == b'.' && name[dot + 1..].eq_ignore_ascii_case(domain))
}
