//! A certificate authority of a test's own, and certificates of servers.

use crate::unique_name;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// An authority that nobody but its test trusts; its files go with the value.
#[derive(Debug)]
pub struct Authority {
    /// Its certificate, PEM.
    pub file: PathBuf,
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it writes files, as no default does")]
    pub fn new() -> Authority {
        let folder = env::temp_dir().join(format!("{}_authority", unique_name()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let mut parameters = CertificateParams::new([]).expect("no name is a usable list of names");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, unique_name());
        let key = KeyPair::generate().expect("a key can be made");
        let issuer = CertifiedIssuer::self_signed(parameters, key).expect("a certificate can be made");
        let file = folder.join("authority.pem");
        fs::write(&file, issuer.pem()).expect("a temporary file");
        Authority { file, folder, issuer }
    }

    /// A server's certificate for these host names and addresses, followed by its key, PEM; readable by `user` alone.
    #[must_use]
    pub fn certificate_for(&self, names: &[&str], user: Option<u32>) -> PathBuf {
        let key = KeyPair::generate().expect("a key can be made");
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let parameters = CertificateParams::new(names).expect("usable names");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate can be made");
        let file = self.folder.join(format!("{}.pem", unique_name()));
        fs::write(&file, certificate.pem() + &key.serialize_pem()).expect("a temporary file");
        private_to(user, &file);
        file
    }
}

/// Servers refuse secrets that others can read.
pub(crate) fn private_to(user: Option<u32>, file: &Path) {
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("permissions of our own file");
    if user.is_some() {
        std::os::unix::fs::chown(file, user, None).expect("root gives its file away");
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder); // what is left behind harms no other test
    }
}
