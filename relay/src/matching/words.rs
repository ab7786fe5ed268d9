//! Words of names and addresses as the matching compares them: folded, and only those that tell one firm from another.

use std::collections::BTreeSet;
use unicode_normalization::UnicodeNormalization as _;

/// Equal for what German collation of strength 2 holds equal: case and ß/ss do not matter, umlauts do.
pub(crate) fn fold(text: &str) -> String {
    let lower = match text.is_ascii() {
        true => text.to_ascii_lowercase(), // addresses, mostly
        false => text.nfc().collect::<String>().to_lowercase().replace('ß', "ss"),
    };
    lower.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A number without the blanks and marks that people put into it.
pub(super) fn bare_number(number: &str) -> String {
    fold(number).chars().filter(|character| character.is_alphanumeric()).collect()
}

pub(super) fn domain(address: &str) -> Option<&str> {
    address.rsplit_once('@').map(|(_, domain)| domain).filter(|domain| domain.contains('.'))
}

/// Providers at whom anybody has an address. The name before the last dot counts, whatever the top-level domain.
const PROVIDERS: &str = "gmail googlemail hotmail outlook live msn yahoo ymail gmx web t-online freenet posteo mail \
    email mailbox aol icloud me mac proton protonmail tutanota tuta arcor vodafone 1und1 online \
    kabelmail magenta";

pub(super) fn is_freemail(domain: &str) -> bool {
    let host = domain.rsplit_once('.').map_or(domain, |(host, _)| host);
    let host = host.strip_suffix(".co").unwrap_or(host);
    PROVIDERS.split(' ').any(|provider| provider == host)
}

/// What the addresses of one sender have in common: the domain, or at a provider of mailboxes the whole address. None = no address.
pub(crate) fn sender_key(address: &str) -> Option<String> {
    let address = fold(address);
    let domain = domain(&address)?;
    Some(if is_freemail(domain) { address } else { domain.to_owned() })
}

/// Legal forms, trades and titles: alone they prove nothing.
const COMMON: &str = "gmbh mbh ohg limited gesellschaft aktiengesellschaft genossenschaft verein stiftung gruppe \
    holding group company deutschland deutsche deutscher deutsches germany bank sparkasse \
    volksbank raiffeisenbank inkasso incasso collection collections forderungsmanagement \
    forderungen forderung forderungskauf versicherung versicherungen versand handel vertrieb \
    service services dienst dienste kundenservice rechtsanwalt rechtsanwälte rechtsanwaelte \
    rechtsanwältin anwalt anwälte kanzlei kollegen partner partnerschaft stadt gemeinde \
    landkreis kreis finanz finance telekom mobilfunk energie credit kredit info";

/// Words longer than three letters that tell one firm from another.
pub(super) fn significant_words(name: &str) -> BTreeSet<String> {
    fold(name)
        .split(|character: char| !character.is_alphanumeric())
        .filter(|word| word.chars().count() > 3 && !COMMON.split(' ').any(|common| common == *word))
        .map(str::to_owned)
        .collect()
}
