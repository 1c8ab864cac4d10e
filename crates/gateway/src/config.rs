//! Command line and environment become a configuration. Each error names the flag or variable, its value unless it is a secret,
//! and what to do.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Parser as _;
use pve_public_ip_core::model::IfName;

/// No secret is shorter, in bytes.
pub const SECRET_MINIMUM: usize = 32;

/// No secret is longer, in bytes: it has to fit into a header.
pub const SECRET_MAXIMUM: usize = 512;

/// Where it listens if nothing else is said.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1537);

/// Makes a secret.
const MAKE_A_SECRET: &str = "head -c 32 /dev/urandom | base64 -w0";

/// The API of pve-public-ip over Connect, gRPC and gRPC-Web
///
/// Secrets are never arguments, which every user of the machine can read: `GATEWAY_API_SECRET` or a file named by
/// `GATEWAY_API_SECRET_FILE` has the secret of panels and automation, `SUPERADMIN_API_SECRET` or `SUPERADMIN_API_SECRET_FILE`
/// that of the operator; systemd's credentials `gateway-api-secret` and `superadmin-api-secret` do as well. Two secrets,
/// separated by a newline or a comma, count both: that is how one is changed.
#[derive(Debug, clap::Parser)]
#[command(name = "pve-public-ip-gateway", version)]
struct Arguments {
    /// Address and port to listen at; another one than loopback wants TLS [default: systemd's socket, else 127.0.0.1:1537]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Socket of the root part
    #[arg(long, value_name = "PATH", default_value = "/run/pve-public-ip-api.sock")]
    api_socket: PathBuf,
    /// Certificate and its chain, in PEM; loaded again when the file changes
    #[arg(long, value_name = "PATH", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, value_name = "PATH", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Whose client certificates are wanted, besides a key; in PEM
    #[arg(long, value_name = "PATH", requires = "tls_certificate")]
    client_ca: Option<PathBuf>,
    /// Listen without TLS where others can read it
    #[arg(long)]
    insecure: bool,
}

/// What the daemon was told.
#[derive(Debug)]
pub struct Config {
    /// Where it shall listen, if that was said.
    listen: Option<SocketAddr>,
    /// Whether others may read what it says.
    insecure: bool,
    /// The socket of the root part.
    pub api_socket: PathBuf,
    /// Its certificates.
    pub tls: Option<TlsFiles>,
    /// The secrets that need no root part.
    pub secrets: Secrets,
    /// Which uplink a new address is for, if it could be several.
    pub uplink: Option<IfName>,
}

/// Files of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and its chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Whose client certificates are wanted.
    pub client_ca: Option<PathBuf>,
}

/// A secret. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// For whoever compares it.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The secrets that need no root part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secrets {
    /// Of panels and automation: one, or two while one is changed.
    pub gateway: Vec<Secret>,
    /// Of the operator; none: only keys of that role count.
    pub superadmin: Vec<Secret>,
}

/// Why it does not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It was asked for its help or version: this is it.
    Answer(String),
    /// It is told wrongly.
    Wrong {
        /// What is wrong.
        sentence: String,
        /// What to do.
        hint: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(text) => f.write_str(text),
            Self::Wrong { sentence, hint } if hint.is_empty() => write!(f, "error: {sentence}"),
            Self::Wrong { sentence, hint } => write!(f, "error: {sentence}\nhint: {hint}"),
        }
    }
}

fn wrong(sentence: impl Into<String>, hint: impl Into<String>) -> Refusal {
    Refusal::Wrong { sentence: sentence.into(), hint: hint.into() }
}

/// The environment, and the files that it names.
pub struct Surroundings<'a> {
    /// Its variables.
    pub variables: &'a BTreeMap<String, String>,
    /// Reads a file.
    pub read: &'a dyn Fn(&Path) -> io::Result<String>,
}

impl Surroundings<'_> {
    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn file(&self, what: &str, path: &Path) -> Result<String, Refusal> {
        (self.read)(path).map_err(|error| {
            wrong(
                format!("{what}: cannot read {}: {error}", path.display()),
                format!("`ls -l {}`: the file must be there, and readable for the user of the gateway", path.display()),
            )
        })
    }

    /// Secrets of a role, wherever they are.
    fn secrets(&self, role: &str) -> Result<Vec<Secret>, Refusal> {
        let variable = format!("{}_API_SECRET", role.to_uppercase());
        let file_variable = format!("{variable}_FILE");
        let credential = format!("{role}-api-secret");
        let mut found: Vec<(String, String)> = Vec::new();
        if let Some(value) = self.variable(&variable) {
            found.push((variable.clone(), value.to_owned()));
        }
        if let Some(path) = self.variable(&file_variable) {
            found.push((file_variable.clone(), self.file(&file_variable, Path::new(path))?));
        }
        if let Some(directory) = self.variable("CREDENTIALS_DIRECTORY") {
            let path = Path::new(directory).join(&credential);
            match (self.read)(&path) {
                Ok(text) => found.push((format!("the credential {credential}"), text)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => drop(self.file(&format!("the credential {credential}"), &path)?),
            }
        }
        match found.as_slice() {
            [] => Ok(Vec::new()),
            [(name, text)] => secrets_of(name, text),
            [(first, _), (second, _), ..] => Err(wrong(
                format!("{first} and {second} both have the secret of the role {role}"),
                format!(
                    "remove {first} or {second}; while a secret is changed, one of them has both, separated by a comma"
                ),
            )),
        }
    }
}

/// One or two secrets of a text.
fn secrets_of(name: &str, text: &str) -> Result<Vec<Secret>, Refusal> {
    let words: Vec<&str> = text.split(['\n', ',']).map(str::trim).filter(|word| !word.is_empty()).collect();
    let advice = format!("`{MAKE_A_SECRET}` makes one");
    if words.is_empty() {
        return Err(wrong(format!("{name} is empty"), advice));
    }
    if words.len() > 2 {
        return Err(wrong(
            format!("{name} has {} secrets; two at a time are allowed", words.len()),
            "keep the one in use, and the one that replaces it; `pve-public-ip key add` makes keys for further callers",
        ));
    }
    for (number, word) in words.iter().enumerate() {
        let which = if words.len() == 1 { String::new() } else { format!(" number {}", number + 1) };
        if word.len() < SECRET_MINIMUM {
            let length = word.len();
            return Err(wrong(
                format!("{name}: the secret{which} has {length} bytes; at least {SECRET_MINIMUM} are needed"),
                advice,
            ));
        }
        if word.len() > SECRET_MAXIMUM {
            let length = word.len();
            return Err(wrong(
                format!("{name}: the secret{which} has {length} bytes; at most {SECRET_MAXIMUM} fit"),
                advice,
            ));
        }
        if !word.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong(
                format!(
                    "{name}: the secret{which} has a byte that an HTTP header cannot carry: a space, a control or a letter beyond ASCII"
                ),
                advice,
            ));
        }
    }
    if let [first, second] = words.as_slice()
        && first == second
    {
        return Err(wrong(format!("{name} has the same secret twice"), "remove one of them"));
    }
    Ok(words.into_iter().map(|word| Secret(word.to_owned())).collect())
}

impl Secrets {
    /// Reads them, at the start and whenever the daemon is told to reload.
    pub fn load(surroundings: &Surroundings<'_>) -> Result<Self, Refusal> {
        let secrets =
            Self { gateway: surroundings.secrets("gateway")?, superadmin: surroundings.secrets("superadmin")? };
        if secrets.gateway.is_empty() {
            return Err(wrong(
                "GATEWAY_API_SECRET is not set, nor GATEWAY_API_SECRET_FILE, nor the credential gateway-api-secret",
                format!(
                    "`{MAKE_A_SECRET}` makes a secret; write it to a file that only the gateway's user can read, and name the file in GATEWAY_API_SECRET_FILE"
                ),
            ));
        }
        if secrets.gateway.iter().any(|secret| secrets.superadmin.contains(secret)) {
            return Err(wrong(
                "GATEWAY_API_SECRET and SUPERADMIN_API_SECRET are the same, so that every panel were superadmin",
                format!("`{MAKE_A_SECRET}` makes another one"),
            ));
        }
        Ok(secrets)
    }
}

impl Config {
    /// Of the arguments, the program's name among them, and the environment.
    pub fn parse(arguments: &[String], surroundings: &Surroundings<'_>) -> Result<Self, Refusal> {
        let arguments = Arguments::try_parse_from(arguments).map_err(|error| {
            let text = error.to_string();
            if error.use_stderr() {
                wrong(text.trim_start_matches("error: ").trim_end(), "")
            } else {
                Refusal::Answer(text)
            }
        })?;
        let listen = arguments.listen.map(|text| {
            text.parse::<SocketAddr>().map_err(|_| {
                wrong(
                    format!("--listen: `{text}` is no address with a port"),
                    "such as `--listen 127.0.0.1:1537`, `--listen [::1]:1537` or `--listen 0.0.0.0:1537`",
                )
            })
        });
        let tls = match (arguments.tls_certificate, arguments.tls_key) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key, client_ca: arguments.client_ca }),
            _ => None,
        };
        let uplink = surroundings.variable("GATEWAY_UPLINK_INTERFACE").map(|text| {
            text.parse::<IfName>().map_err(|error| {
                wrong(
                    format!("GATEWAY_UPLINK_INTERFACE: {error}"),
                    "`ip -br link` shows the interfaces; such as `eno1`",
                )
            })
        });
        Ok(Self {
            listen: listen.transpose()?,
            insecure: arguments.insecure,
            api_socket: arguments.api_socket,
            tls,
            secrets: Secrets::load(surroundings)?,
            uplink: uplink.transpose()?,
        })
    }

    /// Where it listens: at the socket that systemd gives, if there is one.
    pub fn listen(&self, given: Option<SocketAddr>) -> Result<SocketAddr, Refusal> {
        let (listen, from) = match (given, self.listen) {
            (Some(given), Some(listen)) if given != listen => {
                return Err(wrong(
                    format!("--listen: {listen} is not {given}, where systemd listens for the gateway"),
                    "leave --listen out; `systemctl edit pve-public-ip-gateway.socket` sets ListenStream=",
                ));
            }
            (Some(given), _) => (given, "systemd's socket"),
            (None, Some(listen)) => (listen, "--listen"),
            (None, None) => (DEFAULT_LISTEN, "--listen"),
        };
        if self.tls.is_none() && !self.insecure && !listen.ip().to_canonical().is_loopback() {
            return Err(wrong(
                format!("{from}: {listen} is not loopback, and without TLS whoever is on the way reads the secrets"),
                "`--tls-certificate CERTIFICATE --tls-key KEY`, such as copies of /etc/pve/local/pve-ssl.pem and pve-ssl.key that the gateway can read; or `--insecure`, if the network is yours alone",
            ));
        }
        Ok(listen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "fedcba9876543210fedcba9876543210";

    /// Arguments, variables, and why they are refused.
    type Case<'a> = (Vec<&'a str>, Vec<(&'a str, &'a str)>, &'a str);

    fn parse(arguments: &[&str], variables: &[(&str, &str)], files: &[(&str, &str)]) -> Result<Config, Refusal> {
        let arguments: Vec<String> =
            ["pve-public-ip-gateway"].iter().chain(arguments).map(ToString::to_string).collect();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let read = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
        };
        Config::parse(&arguments, &Surroundings { variables: &variables, read: &read })
    }

    #[test]
    fn secrets_are_read_from_each_place() {
        let credential = format!("{SECRET}\n");
        for (variables, files) in [
            (vec![("GATEWAY_API_SECRET", SECRET)], vec![]),
            (vec![("GATEWAY_API_SECRET_FILE", "/s")], vec![("/s", credential.as_str())]),
            (vec![("CREDENTIALS_DIRECTORY", "/c")], vec![("/c/gateway-api-secret", credential.as_str())]),
        ] {
            let config = parse(&[], &variables, &files).unwrap();
            assert_eq!(config.secrets.gateway, [Secret(SECRET.to_owned())]);
            assert_eq!(config.listen(None).unwrap().to_string(), "127.0.0.1:1537");
            assert!(!format!("{config:?}").contains(SECRET));
        }
        for both in [format!("{SECRET},{OTHER}"), format!("{SECRET}\n{OTHER}\n"), format!(" {SECRET} , {OTHER} ")] {
            let config = parse(&[], &[("GATEWAY_API_SECRET", &both), ("SUPERADMIN_API_SECRET", &"x".repeat(40))], &[]);
            let secrets = config.unwrap().secrets;
            assert_eq!((secrets.gateway.len(), secrets.superadmin.len()), (2, 1));
        }
    }

    #[test]
    fn says_why_it_refuses_and_never_the_secret() {
        let short = "hunter2hunter2";
        let three = format!("{SECRET},{OTHER},{}", "z".repeat(32));
        let twice = format!("{SECRET},{SECRET}");
        let cases: Vec<Case<'_>> = vec![
            (vec![], vec![], "GATEWAY_API_SECRET is not set"),
            (
                vec![],
                vec![("GATEWAY_API_SECRET", short)],
                "GATEWAY_API_SECRET: the secret has 14 bytes; at least 32 are needed",
            ),
            (vec![], vec![("GATEWAY_API_SECRET", &three)], "has 3 secrets; two at a time"),
            (vec![], vec![("GATEWAY_API_SECRET", &twice)], "the same secret twice"),
            (vec![], vec![("GATEWAY_API_SECRET", " , ")], "GATEWAY_API_SECRET is empty"),
            (vec![], vec![("GATEWAY_API_SECRET", "0123456789abcdef 123456789abcdef")], "an HTTP header cannot carry"),
            (vec![], vec![("GATEWAY_API_SECRET_FILE", "/none")], "GATEWAY_API_SECRET_FILE: cannot read /none"),
            (
                vec![],
                vec![("GATEWAY_API_SECRET", SECRET), ("GATEWAY_API_SECRET_FILE", "/s")],
                "GATEWAY_API_SECRET and GATEWAY_API_SECRET_FILE both have",
            ),
            (vec![], vec![("GATEWAY_API_SECRET", SECRET), ("SUPERADMIN_API_SECRET", SECRET)], "are the same"),
            (
                vec!["--listen", "localhost"],
                vec![("GATEWAY_API_SECRET", SECRET)],
                "--listen: `localhost` is no address",
            ),
            (vec!["--tls-certificate", "/c"], vec![("GATEWAY_API_SECRET", SECRET)], "--tls-key"),
            (vec!["--secret", SECRET], vec![], "unexpected argument '--secret'"),
            (
                vec![],
                vec![("GATEWAY_API_SECRET", SECRET), ("GATEWAY_UPLINK_INTERFACE", "eno 1")],
                "GATEWAY_UPLINK_INTERFACE: interface name `eno 1`",
            ),
        ];
        for (arguments, variables, reason) in cases {
            let refusal = parse(&arguments, &variables, &[("/s", SECRET)]).unwrap_err().to_string();
            assert!(refusal.contains(reason), "{refusal}");
            for secret in [short, SECRET, OTHER, "hunter2"] {
                assert!(!refusal.contains(secret), "{refusal}");
            }
        }
        let refusal = parse(&[], &[("GATEWAY_API_SECRET", short)], &[]).unwrap_err().to_string();
        assert!(refusal.ends_with("hint: `head -c 32 /dev/urandom | base64 -w0` makes one"), "{refusal}");
    }

    #[test]
    fn only_loopback_needs_no_tls() {
        let secret = [("GATEWAY_API_SECRET", SECRET)];
        let listen = |arguments: &[&str], given: Option<&str>| {
            let given = given.map(|text| text.parse().unwrap());
            let config = parse(arguments, &secret, &[]).unwrap();
            config.listen(given).map(|address| address.to_string()).map_err(|refusal| refusal.to_string())
        };
        for address in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(listen(&["--listen", address], None).unwrap(), address);
            assert_eq!(listen(&[], Some(address)).unwrap(), address);
            assert_eq!(listen(&["--listen", address], Some(address)).unwrap(), address);
        }
        for address in ["0.0.0.0:1537", "[::]:1537", "192.0.2.1:1537"] {
            let refusal = listen(&["--listen", address], None).unwrap_err();
            assert!(refusal.contains(&format!("--listen: {address} is not loopback")), "{refusal}");
            let refusal = listen(&[], Some(address)).unwrap_err();
            assert!(refusal.contains(&format!("systemd's socket: {address} is not loopback")), "{refusal}");
            assert_eq!(listen(&["--insecure"], Some(address)).unwrap(), address);
            assert_eq!(listen(&["--tls-certificate", "/c", "--tls-key", "/k"], Some(address)).unwrap(), address);
        }
        let refusal = listen(&["--listen", "127.0.0.1:1"], Some("127.0.0.1:2")).unwrap_err();
        assert!(refusal.contains("127.0.0.1:1 is not 127.0.0.1:2, where systemd listens"), "{refusal}");
        let Refusal::Answer(help) = parse(&["--help"], &[], &[]).unwrap_err() else { panic!() };
        assert!(help.contains("GATEWAY_API_SECRET") && help.contains("--client-ca"), "{help}");
    }
}
