//! Credentials as the AWS command line keeps them: `~/.aws/credentials` and `~/.aws/config`.
//!
//! Format: <https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html>. Static keys and the region are read; a profile
//! that gets its keys by other means (SSO, a process, a role) is refused with what to do.

use std::collections::BTreeMap;
use std::path::PathBuf;

use object_store::aws::AmazonS3Builder;

/// A section's settings.
type Settings = BTreeMap<String, String>;

/// Adds what the profile has, where the environment names no credentials.
///
/// # Errors
/// A profile that is named and is not there, or that has no static keys.
pub(crate) fn with_profile(
    builder: AmazonS3Builder,
    environment: &impl Fn(&str) -> Option<String>,
) -> Result<AmazonS3Builder, String> {
    const BY_ENVIRONMENT: [&str; 5] = [
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_SKIP_SIGNATURE",
    ];
    if BY_ENVIRONMENT.iter().any(|name| environment(name).is_some()) {
        return Ok(builder);
    }
    let named = environment("AWS_PROFILE");
    let profile = named.clone().unwrap_or_else(|| "default".to_string());
    let file = |variable: &str, name: &str| {
        environment(variable)
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(environment("HOME")?).join(".aws").join(name)))
    };
    let read = |path: Option<PathBuf>| path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let credentials = sections(&read(file("AWS_SHARED_CREDENTIALS_FILE", "credentials")));
    let config = sections(&read(file("AWS_CONFIG_FILE", "config")));
    let in_config = if profile == "default" { profile.clone() } else { format!("profile {profile}") };
    let mut settings = config.get(&in_config).cloned().unwrap_or_default();
    settings.extend(credentials.get(&profile).cloned().unwrap_or_default());
    if settings.is_empty() {
        return match named {
            Some(name) => {
                Err(format!("AWS_PROFILE={name}: there is no such profile in ~/.aws/credentials or ~/.aws/config"))
            }
            // Without any profile it is the machine's own role.
            None => Ok(builder),
        };
    }
    let mut builder = builder;
    if let (Some(region), None, None) =
        (settings.get("region"), environment("AWS_REGION"), environment("AWS_DEFAULT_REGION"))
    {
        builder = builder.with_region(region);
    }
    match (settings.get("aws_access_key_id"), settings.get("aws_secret_access_key")) {
        (Some(id), Some(secret)) => {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret);
            if let Some(token) = settings.get("aws_session_token") {
                builder = builder.with_token(token);
            }
            Ok(builder)
        }
        _ if named.is_some() => Err(format!(
            "the AWS profile {profile} has no static keys; put them into the environment: \
             eval \"$(aws configure export-credentials --profile {profile} --format env)\""
        )),
        _ => Ok(builder),
    }
}

/// The sections of a file: `[name]`, then `key = value`. Settings of settings, which are indented, are left out.
fn sections(text: &str) -> BTreeMap<String, Settings> {
    let mut found: BTreeMap<String, Settings> = BTreeMap::new();
    let mut section = String::new();
    for line in text.lines() {
        let nested = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.starts_with(['#', ';']) || nested {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.split_whitespace().collect::<Vec<_>>().join(" ");
        } else if let Some((key, value)) = line.split_once('=') {
            let settings = found.entry(section.clone()).or_default();
            settings.insert(key.trim().to_lowercase(), value.trim().to_string());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use object_store::aws::AmazonS3ConfigKey as Key;

    use super::*;

    const CREDENTIALS: &str = "# mine\n[default]\naws_access_key_id = one\naws_secret_access_key=secret/1=\n\n\
        [work]\naws_access_key_id=two\naws_secret_access_key=secret2\naws_session_token = t\n";
    const CONFIG: &str = "[default]\nregion = eu-central-1\ns3 =\n  max_concurrent_requests = 20\n[profile  work]\nregion=us-west-2\n\
        [profile sso]\nsso_start_url = https://example.com\n";

    fn made(environment: &[(&str, &str)]) -> Result<[Option<String>; 4], String> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join(".aws")).expect("a folder");
        std::fs::write(folder.path().join(".aws/credentials"), CREDENTIALS).expect("written");
        std::fs::write(folder.path().join(".aws/config"), CONFIG).expect("written");
        let home = folder.path().display().to_string();
        let get = |name: &str| match name {
            "HOME" => Some(home.clone()),
            name => environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_string()),
        };
        let builder = with_profile(AmazonS3Builder::new(), &get)?;
        let keys = [Key::AccessKeyId, Key::SecretAccessKey, Key::Token, Key::Region];
        Ok(keys.map(|key| builder.get_config_value(&key)))
    }

    fn values(of: [&str; 4]) -> [Option<String>; 4] {
        of.map(|value| (!value.is_empty()).then(|| value.to_string()))
    }

    #[test]
    fn a_profile_gives_keys_and_region_where_the_environment_does_not() {
        assert_eq!(made(&[]), Ok(values(["one", "secret/1=", "", "eu-central-1"])));
        assert_eq!(made(&[("AWS_PROFILE", "work")]), Ok(values(["two", "secret2", "t", "us-west-2"])));
        assert_eq!(made(&[("AWS_REGION", "x")]), Ok(values(["one", "secret/1=", "", ""])));
        assert_eq!(made(&[("AWS_ACCESS_KEY_ID", "mine")]), Ok(values(["", "", "", ""])));
    }

    #[test]
    fn a_profile_that_cannot_be_used_is_refused() {
        assert!(made(&[("AWS_PROFILE", "none")]).unwrap_err().contains("there is no such profile"));
        assert!(made(&[("AWS_PROFILE", "sso")]).unwrap_err().contains("export-credentials --profile sso"));
    }
}
