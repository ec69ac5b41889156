//! Finding an instance by its name.

use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::Value;

use super::{
    client::Client,
    id::{InstanceId, InstanceName, ResourceGroupName, SubscriptionId, instances_path},
    instance::{ProvisioningService, Resource},
};
use crate::transport::{Call, Error, items};

/// The version of the API that lists subscriptions, which belongs to Resource Manager itself.
const SUBSCRIPTIONS_VERSION: &str = "2022-12-01";

/// How many subscriptions are searched concurrently.
const CONCURRENCY: usize = 8;

/// Which instance to find: its name, and where to search for it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct InstanceQuery {
    /// The name.
    pub name: InstanceName,
    /// The subscription to search. `None` means all that the sign-in can see.
    pub subscription: Option<SubscriptionId>,
    /// The resource group to search. `None` means all.
    pub resource_group: Option<ResourceGroupName>,
}

impl InstanceQuery {
    /// Returns a query that searches everything that the sign-in can see.
    #[must_use]
    pub fn new(name: InstanceName) -> Self {
        Self { name, subscription: None, resource_group: None }
    }

    /// Sets the subscription to search.
    #[must_use]
    pub fn subscription(mut self, id: impl Into<Option<SubscriptionId>>) -> Self {
        self.subscription = id.into();
        self
    }

    /// Sets the resource group to search.
    #[must_use]
    pub fn resource_group(mut self, name: impl Into<Option<ResourceGroupName>>) -> Self {
        self.resource_group = name.into();
        self
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subscription {
    subscription_id: SubscriptionId,
}

impl Client {
    /// Finds an instance by its name. Compares names without regard to case.
    ///
    /// # Errors
    /// [`FindError`] if there is no instance of this name or several, or if the sign-in cannot see what is searched.
    pub async fn find(&self, query: &InstanceQuery) -> Result<ProvisioningService, FindError> {
        let subscriptions = match &query.subscription {
            Some(id) => vec![id.clone()],
            None => self.subscriptions().await?,
        };
        if subscriptions.is_empty() {
            return Err(FindError::NoSubscription);
        }
        let searches = subscriptions.iter().map(|id| async move { (id.clone(), self.search(query, id).await) });
        let results: Vec<_> = stream::iter(searches).buffered(CONCURRENCY).collect().await;
        let (mut instances, mut unreadable) = (Vec::new(), Vec::new());
        for (subscription, result) in results {
            match result {
                Ok(found) => instances.extend(found),
                // 409: the subscription does not use the provider.
                Err(error) if !matches!(error.status(), Some(403 | 404 | 409)) => return Err(error.into()),
                Err(error) if query.subscription.is_some() => {
                    let resource_group = query.resource_group.clone();
                    return Err(FindError::NotVisible { subscription, resource_group, error: Box::new(error) });
                }
                // The group is in another subscription.
                Err(error) if error.status() == Some(404) && query.resource_group.is_some() => {}
                Err(_) => unreadable.push(subscription),
            }
        }
        let named = |(_, found): &(Call, Value)| {
            name_of(found).is_some_and(|name| name.eq_ignore_ascii_case(query.name.as_str()))
        };
        let (found, others): (Vec<_>, Vec<_>) = instances.into_iter().partition(named);
        let others = others.iter().filter_map(|(_, other)| name_of(other).map(str::to_owned)).collect();
        let parse = |(call, found)| Ok((self.rest().parse::<Resource>(&call, found)?, call));
        let mut found = found.into_iter().map(parse).collect::<Result<Vec<_>, Error>>()?;
        // Pages overlap if an instance is created while they are read.
        found.dedup_by(|(one, _), (other, _)| one.id.eq_ignore_ascii_case(&other.id));
        let name = query.name.clone();
        if found.len() > 1 {
            let found = found.iter().filter_map(|(resource, _)| resource.id.parse().ok()).collect();
            return Err(FindError::Several { name, found });
        }
        if let Some((resource, call)) = found.pop() {
            return Ok(self.describe(resource, &call).await?);
        }
        let resource_group = query.resource_group.clone();
        Err(FindError::NotFound { name, subscriptions, resource_group, unreadable, others })
    }

    /// Returns the subscriptions that the sign-in can see.
    async fn subscriptions(&self) -> Result<Vec<SubscriptionId>, Error> {
        let call = Call::get(&["subscriptions"]).with_api_version(SUBSCRIPTIONS_VERSION);
        let all: Vec<Subscription> = items(self.rest().clone(), call, None).try_collect().await?;
        Ok(all.into_iter().map(|subscription| subscription.subscription_id).collect())
    }

    /// Lists the instances of a subscription. In a resource group, reads the one instance that can have the name, which
    /// needs no permission for others.
    ///
    /// They are not parsed: an instance that is being created or is damaged must not hide the others.
    async fn search(&self, query: &InstanceQuery, subscription: &SubscriptionId) -> Result<Vec<(Call, Value)>, Error> {
        let mut path = instances_path(subscription, query.resource_group.as_ref());
        if query.resource_group.is_none() {
            let call = Call::get(&path);
            let all: Vec<Value> = items(self.rest().clone(), call.clone(), None).try_collect().await?;
            return Ok(all.into_iter().map(|resource| (call.clone(), resource)).collect());
        }
        path.push(query.name.as_str());
        let call = Call::get(&path);
        match self.rest().read(&call).await {
            Ok(resource) => Ok(vec![(call, resource)]),
            Err(error) if error.code() == Some("ResourceNotFound") => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// Returns the name of a resource.
fn name_of(resource: &Value) -> Option<&str> {
    resource.get("name")?.as_str()
}

/// Explains why an instance was not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// The sign-in can see no subscription.
    #[error(
        "the sign-in can see no subscription: assign it a role on the DPS instance, such as Contributor, or sign in to \
         another tenant"
    )]
    NoSubscription,
    /// The subscription or resource group to search does not exist, or the sign-in cannot see it.
    #[error("{} does not exist, or the sign-in cannot see it: {error}", place(subscription, resource_group.as_ref()))]
    NotVisible {
        /// The subscription.
        subscription: SubscriptionId,
        /// The resource group, if the query named one.
        resource_group: Option<ResourceGroupName>,
        /// How the service refused.
        error: Box<Error>,
    },
    /// There is no instance of this name.
    #[error("{}", not_found(name, subscriptions, resource_group.as_ref(), unreadable, others))]
    NotFound {
        /// The name.
        name: InstanceName,
        /// The subscriptions that were searched.
        subscriptions: Vec<SubscriptionId>,
        /// The resource group that was searched, if the query named one.
        resource_group: Option<ResourceGroupName>,
        /// Those of the subscriptions that the sign-in cannot read.
        unreadable: Vec<SubscriptionId>,
        /// The names of the instances that were found.
        others: Vec<String>,
    },
    /// There are several instances of this name.
    #[error("there are {} DPS instances named {name}: {}", found.len(), join(found))]
    Several {
        /// The name.
        name: InstanceName,
        /// Their resource IDs.
        found: Vec<InstanceId>,
    },
    /// A call failed.
    #[error(transparent)]
    Call(#[from] Error),
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn place(subscription: &SubscriptionId, group: Option<&ResourceGroupName>) -> String {
    match group {
        Some(group) => format!("resource group {group} of subscription {subscription}"),
        None => format!("subscription {subscription}"),
    }
}

fn not_found(
    name: &InstanceName,
    subscriptions: &[SubscriptionId],
    group: Option<&ResourceGroupName>,
    unreadable: &[SubscriptionId],
    others: &[String],
) -> String {
    let within = match (subscriptions, group) {
        ([subscription], group) => place(subscription, group),
        (all, Some(group)) => {
            format!("resource group {group} of the {} subscriptions that the sign-in can see", all.len())
        }
        (all, None) => format!("the {} subscriptions that the sign-in can see", all.len()),
    };
    let others = if others.is_empty() { String::new() } else { format!("; found {}", others.join(", ")) };
    let unreadable = match unreadable {
        [] => String::new(),
        _ => format!("; the sign-in cannot list the instances of {}", join(unreadable)),
    };
    format!("no DPS instance named {name} is visible in {within}{others}{unreadable}")
}
