//! `shipway user`, `group`, `token`, `login`, `logout` and `whoami`.

use shipway_api::{
    ApiClient, GroupRequest, GroupView, LoginRequest, NewGroupRequest, NewTokenRequest,
    NewUserRequest, PasswordRequest, TokenView, UserAction, UserProfileRequest, UserView,
};
use shipway_core::{
    access::RoleBinding,
    ids::{GroupName, UserName},
};

use crate::{
    client::ServerConnection,
    credentials,
    exit::Failure,
    password_input::PasswordSource,
    print::{Output, ago, line, table},
};

const ROLE_HELP: &str = "viewer, deployer, approver or admin, as ROLE, ROLE:SERVICE or ROLE:SERVICE/ENVIRONMENT; repeatable";

/// Add, list, change and remove users
#[derive(Debug, clap::Subcommand)]
pub enum UserCommand {
    /// Add a user; the first one must be an admin
    Add {
        /// User name: lower-case letters, digits and hyphens
        name: String,
        #[arg(long = "role", value_name = "ROLE", help = ROLE_HELP)]
        roles: Vec<RoleBinding>,
        /// A group that the user is a member of; repeatable
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<GroupName>,
        /// Display name
        #[arg(long, value_name = "TEXT")]
        display_name: Option<String>,
        /// E-mail address
        #[arg(long, value_name = "ADDRESS")]
        email: Option<String>,
        /// Read the password from the first line of standard input
        #[arg(long, conflicts_with = "no_password")]
        password_stdin: bool,
        /// Without a password the user can't sign in, but can own tokens
        #[arg(long)]
        no_password: bool,
    },
    /// List users with their roles
    List,
    /// Show one user
    Show {
        /// User name
        name: String,
    },
    /// Change the roles, groups, names or password of a user
    Set(UserChanges),
    /// Disable a user: sessions end, tokens are refused
    Disable {
        /// User name
        name: String,
    },
    /// Enable a disabled user
    Enable {
        /// User name
        name: String,
    },
    /// End all sessions of a user
    Logout {
        /// User name
        name: String,
    },
    /// Remove a user with its tokens; what it did stays in the log
    Remove {
        /// User name
        name: String,
    },
}

#[derive(Debug, clap::Args)]
pub struct UserChanges {
    /// User name: lower-case letters, digits and hyphens
    name: String,
    #[arg(
        long = "role",
        value_name = "ROLE",
        help = "Replace the roles: viewer, deployer, approver or admin, as ROLE, ROLE:SERVICE or ROLE:SERVICE/ENVIRONMENT; repeatable"
    )]
    roles: Vec<RoleBinding>,
    /// Add a role; repeatable
    #[arg(long = "add-role", value_name = "ROLE")]
    added_roles: Vec<RoleBinding>,
    /// Remove a role; repeatable
    #[arg(long = "remove-role", value_name = "ROLE")]
    removed_roles: Vec<RoleBinding>,
    /// Add to a group; repeatable
    #[arg(long = "add-group", value_name = "GROUP")]
    added_groups: Vec<GroupName>,
    /// Remove from a group; repeatable
    #[arg(long = "remove-group", value_name = "GROUP")]
    removed_groups: Vec<GroupName>,
    /// Display name
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// E-mail address
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// Set a new password; sessions of the user end
    #[arg(long)]
    password: bool,
    /// Read the new password from the first line of standard input
    #[arg(long)]
    password_stdin: bool,
}

/// Add, list, change and remove groups of users
#[derive(Debug, clap::Subcommand)]
pub enum GroupCommand {
    /// Add a group; approval rules name it as @GROUP
    Add {
        /// The group: lower-case letters, digits and hyphens
        name: GroupName,
        #[arg(long = "role", value_name = "ROLE", help = ROLE_HELP)]
        roles: Vec<RoleBinding>,
    },
    /// List groups with their roles and members
    List,
    /// Replace the roles of a group
    Set {
        /// The group: lower-case letters, digits and hyphens
        name: GroupName,
        #[arg(long = "role", value_name = "ROLE", help = ROLE_HELP)]
        roles: Vec<RoleBinding>,
    },
    /// Remove a group; its members lose its roles
    Remove {
        /// The group
        name: GroupName,
    },
}

/// Create, list and revoke access tokens
#[derive(Debug, clap::Subcommand)]
pub enum TokenCommand {
    /// Create a token; its secret is shown once
    Create {
        /// Its purpose, such as `ci`
        name: String,
        #[arg(
            long = "role",
            value_name = "ROLE",
            help = "Limit it to these roles of its owner; repeatable. Default: all roles of its owner"
        )]
        roles: Vec<RoleBinding>,
        /// The user that it acts for, if not you
        #[arg(long, value_name = "USER")]
        owner: Option<UserName>,
        /// Days until it expires
        #[arg(long, value_name = "DAYS", conflicts_with = "no_expiry", value_parser = clap::value_parser!(u16).range(1..=366))]
        expires: Option<u16>,
        /// It never expires; for admins
        #[arg(long)]
        no_expiry: bool,
    },
    /// List tokens with their expiry and last use
    List,
    /// Revoke a token and those made with it
    Revoke {
        /// Its id, such as t7
        id: String,
    },
}

/// Sign in: saves an access token for this server in ~/.config/shipway/credentials.json
#[derive(Debug, clap::Args)]
pub struct LoginArgs {
    /// User name
    user: String,
    /// Read the password from the first line of standard input
    #[arg(long)]
    password_stdin: bool,
}

/// Sign out: revokes the saved access token of this server
#[derive(Debug, clap::Args)]
pub struct LogoutArgs {}

/// Show who you are for the server, and your roles
#[derive(Debug, clap::Args)]
pub struct WhoamiArgs {}

/// The option `--password-stdin`.
struct PasswordOption(bool);

fn password_source(option: PasswordOption) -> PasswordSource {
    match option {
        PasswordOption(true) => PasswordSource::StandardInput,
        PasswordOption(false) => PasswordSource::from_environment(),
    }
}

pub fn run_user(
    server: &ServerConnection,
    command: &UserCommand,
    output: Output,
) -> Result<(), Failure> {
    match command {
        UserCommand::Add {
            name,
            roles,
            groups,
            display_name,
            email,
            password_stdin,
            no_password,
        } => {
            let source = password_source(PasswordOption(*password_stdin));
            let asks = *password_stdin || (!no_password && source == PasswordSource::Terminal);
            let password = match asks {
                true => {
                    Some(source.read(&format!("Password of {name} (12 characters or more): "))?)
                }
                false => None,
            };
            let has_password = password.is_some();
            let added = server.add_user(&NewUserRequest {
                name: name.clone(),
                display_name: display_name.clone(),
                email: email.clone(),
                groups: groups.iter().cloned().collect(),
                roles: roles.clone(),
                password,
            })?;
            let next = match has_password {
                true => format!("Sign in with: shipway login {name}"),
                false => format!(
                    "Without a password {name} can't sign in; set one: shipway user set {name} --password-stdin"
                ),
            };
            print_change(&added, &format!("added: {name}. {next}"), output)
        }
        UserCommand::List => list_users(server, output),
        UserCommand::Show { name } => {
            let user = server.user(name)?;
            if output.json {
                return output.document(&user);
            }
            print_users(&[user]);
            Ok(())
        }
        UserCommand::Set(changes) => change_user(server, changes, output),
        UserCommand::Disable { name } => act_on_user(server, name, UserAction::Disable, output),
        UserCommand::Enable { name } => act_on_user(server, name, UserAction::Enable, output),
        UserCommand::Logout { name } => act_on_user(server, name, UserAction::Logout, output),
        UserCommand::Remove { name } => {
            server.remove_user(name)?;
            print_change(
                &serde_json::json!({ "removed": name }),
                &format!("removed: {name}"),
                output,
            )
        }
    }
}

fn list_users(server: &ServerConnection, output: Output) -> Result<(), Failure> {
    let users = server.users()?;
    if output.json {
        return output.document(&users);
    }
    print_users(&users.items);
    Ok(())
}

fn act_on_user(
    server: &ServerConnection,
    name: &str,
    action: UserAction,
    output: Output,
) -> Result<(), Failure> {
    let user = server.act_on_user(name, action)?;
    let done = match action {
        UserAction::Disable => "disabled",
        UserAction::Enable => "enabled",
        UserAction::Logout => "signed out everywhere",
    };
    print_change(&user, &format!("{done}: {name}"), output)
}

fn change_user(
    server: &ServerConnection,
    changes: &UserChanges,
    output: Output,
) -> Result<(), Failure> {
    let name = &changes.name;
    if changes.password || changes.password_stdin {
        let source = password_source(PasswordOption(changes.password_stdin));
        let is_own = server.caller()?.principal == format!("user:{name}");
        let current = match is_own && source == PasswordSource::Terminal {
            true => Some(source.read("Current password: ")?),
            false => None,
        };
        let password = source.read(&format!("New password of {name}: "))?;
        server.set_password(name, &PasswordRequest { password, current })?;
        if !output.json {
            line(&format!("password set: {name}"));
        }
    }
    // A user may change the own password without being an admin.
    if !changes.has_profile_changes() {
        return match output.json {
            true => output.document(&serde_json::json!({ "name": name })),
            false => Ok(()),
        };
    }
    let user = server.user(name)?;
    let changed = server.change_user(name, user.version, &changes.changed_profile(&user))?;
    print_change(&changed, &format!("changed: {name}"), output)
}

impl UserChanges {
    fn has_profile_changes(&self) -> bool {
        let is_password_alone = self.password || self.password_stdin;
        let has_lists = !(self.roles.is_empty()
            && self.added_roles.is_empty()
            && self.removed_roles.is_empty()
            && self.added_groups.is_empty()
            && self.removed_groups.is_empty());
        has_lists || self.display_name.is_some() || self.email.is_some() || !is_password_alone
    }

    fn changed_profile(&self, user: &UserView) -> UserProfileRequest {
        let kept = match self.roles.is_empty() {
            true => &user.roles,
            false => &self.roles,
        };
        let mut roles = kept.clone();
        let added = self.added_roles.iter().filter(|role| !kept.contains(role));
        roles.extend(added.cloned());
        roles.retain(|role| !self.removed_roles.contains(role));
        let mut groups = user.groups.clone();
        groups.extend(self.added_groups.iter().cloned());
        groups.retain(|group| !self.removed_groups.contains(group));
        UserProfileRequest {
            display_name: self.display_name.clone().or(user.display_name.clone()),
            email: self.email.clone().or(user.email.clone()),
            groups,
            roles,
        }
    }
}

pub fn run_group(
    server: &ServerConnection,
    command: &GroupCommand,
    output: Output,
) -> Result<(), Failure> {
    match command {
        GroupCommand::Add { name, roles } => {
            let added = server.add_group(&NewGroupRequest {
                name: name.clone(),
                roles: roles.clone(),
            })?;
            print_change(&added, &format!("added: {name}"), output)
        }
        GroupCommand::List => {
            let groups = server.groups()?;
            if output.json {
                return output.document(&groups);
            }
            print_groups(&groups.items);
            Ok(())
        }
        GroupCommand::Set { name, roles } => {
            let group = server.group(name.as_str())?;
            let request = GroupRequest {
                roles: roles.clone(),
            };
            let changed = server.change_group(name.as_str(), group.version, &request)?;
            print_change(&changed, &format!("changed: {name}"), output)
        }
        GroupCommand::Remove { name } => {
            server.remove_group(name.as_str())?;
            print_change(
                &serde_json::json!({ "removed": name }),
                &format!("removed: {name}"),
                output,
            )
        }
    }
}

pub fn run_token(
    server: &ServerConnection,
    command: &TokenCommand,
    output: Output,
) -> Result<(), Failure> {
    match command {
        TokenCommand::Create {
            name,
            roles,
            owner,
            expires,
            no_expiry,
        } => {
            let created = server.create_token(&NewTokenRequest {
                name: name.clone(),
                owner: owner.clone(),
                roles: roles.clone(),
                expires_in_days: *expires,
                no_expiry: *no_expiry,
            })?;
            if output.json {
                return output.document(&created);
            }
            let end = created.token.expires_at;
            let end = end.map_or_else(
                || "never expires".to_owned(),
                |at| format!("expires {at:.0}"),
            );
            line(&created.secret);
            crate::print::error_line(&format!(
                "{} of {}, {end}. The secret is not shown again; revoke it with: shipway token revoke {}",
                created.token.id, created.token.owner, created.token.id
            ));
            Ok(())
        }
        TokenCommand::List => {
            let tokens = server.tokens()?;
            if output.json {
                return output.document(&tokens);
            }
            print_tokens(&tokens.items);
            Ok(())
        }
        TokenCommand::Revoke { id } => {
            server.revoke_token(id)?;
            print_change(
                &serde_json::json!({ "revoked": id }),
                &format!("revoked: {id}"),
                output,
            )
        }
    }
}

pub fn log_in(server: &ServerConnection, args: &LoginArgs, output: Output) -> Result<(), Failure> {
    let source = password_source(PasswordOption(args.password_stdin));
    let password = source.read(&format!("Password of {}: ", args.user))?;
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let result = server.log_in(&LoginRequest {
        user: args.user.clone(),
        password,
        token_name: Some(format!("shipway login on {host}")),
    })?;
    let created = result
        .created_token
        .ok_or_else(|| Failure::Failed("the server returned no token".to_owned()))?;
    let file = credentials::save_token(&server.server, &created.secret).map_err(|error| {
        Failure::Failed(format!(
            "the token can't be saved: {error}; revoke {} at {}/settings/tokens",
            created.token.id, server.server
        ))
    })?;
    let text = format!(
        "signed in as {} at {}; the token is in {}",
        result.user,
        server.server,
        file.display()
    );
    print_change(&created.token, &text, output)
}

pub fn log_out(server: &ServerConnection, output: Output) -> Result<(), Failure> {
    // A token that is not valid any more needs no revocation.
    let revoked = match credentials::read_token(&server.server) {
        Some(_) => server.log_out(),
        None => {
            return Err(Failure::usage(format!(
                "you are not signed in at {}",
                server.server
            )));
        }
    };
    credentials::remove_token(&server.server)
        .map_err(|error| Failure::Failed(format!("the token can't be removed: {error}")))?;
    match revoked {
        Ok(()) | Err(crate::client::ClientError::Unauthorized(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let text = format!("signed out at {}", server.server);
    print_change(
        &serde_json::json!({ "server": server.server }),
        &text,
        output,
    )
}

pub fn show_caller(server: &ServerConnection, output: Output) -> Result<(), Failure> {
    let caller = server.caller()?;
    if output.json {
        return output.document(&caller);
    }
    line(&format!("{} ({})", caller.name, caller.principal));
    line(&format!("roles   {}", join_roles(&caller.roles)));
    if let Some(limit) = &caller.limit {
        let token = caller.token.as_ref().map(ToString::to_string);
        line(&format!(
            "token   {}, limited to {}",
            token.unwrap_or_default(),
            join_roles(limit)
        ));
    }
    if !caller.groups.is_empty() {
        line(&format!("groups  {}", caller.groups.join(", ")));
    }
    if !caller.has_users {
        line(
            "This server has no users: everyone on its machine may do everything. Add the first admin with: shipway user add NAME --role admin",
        );
    }
    Ok(())
}

fn print_change(
    document: &impl serde::Serialize,
    text: &str,
    output: Output,
) -> Result<(), Failure> {
    if output.json {
        return output.document(document);
    }
    line(text);
    Ok(())
}

fn join_roles(roles: &[RoleBinding]) -> String {
    match roles.is_empty() {
        true => "none".to_owned(),
        false => roles
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    }
}

fn print_users(users: &[UserView]) {
    let row = |user: &UserView| {
        let external = user.external.iter();
        let groups = (user.groups.iter())
            .chain(external.flat_map(|it| &it.groups))
            .map(ToString::to_string);
        let state = match (user.disabled, &user.external, user.has_password) {
            (true, ..) => "disabled".to_owned(),
            (false, Some(account), _) => format!("signs in with {}", account.issuer),
            (false, None, true) => String::new(),
            (false, None, false) => "no password".to_owned(),
        };
        vec![
            user.name.to_string(),
            user.display_name.clone().unwrap_or_default(),
            join_roles(&user.effective_roles),
            groups.collect::<Vec<_>>().join(", "),
            state,
        ]
    };
    table(
        &["user", "name", "roles", "groups", ""],
        &users.iter().map(row).collect::<Vec<_>>(),
    );
}

fn print_groups(groups: &[GroupView]) {
    let row = |group: &GroupView| {
        let members = group.members.iter().map(ToString::to_string);
        vec![
            group.name.to_string(),
            join_roles(&group.roles),
            members.collect::<Vec<_>>().join(", "),
        ]
    };
    table(
        &["group", "roles", "members"],
        &groups.iter().map(row).collect::<Vec<_>>(),
    );
}

fn print_tokens(tokens: &[TokenView]) {
    let row = |token: &TokenView| {
        vec![
            token.id.to_string(),
            token.name.clone(),
            token.owner.to_string(),
            join_roles(&token.roles),
            token
                .expires_at
                .map_or_else(|| "never".to_owned(), |at| format!("{at:.0}")),
            token.last_used_at.map_or_else(|| "never".to_owned(), ago),
        ]
    };
    let head = ["id", "name", "owner", "limit", "expires", "last used"];
    table(&head, &tokens.iter().map(row).collect::<Vec<_>>());
}
