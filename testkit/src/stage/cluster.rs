//! The cluster of a stage.

use std::sync::Arc;

use crate::chart;
use crate::control_plane::{ControlPlane, Kubectl};
use crate::error::Result;

/// A control plane of the kit, or an existing cluster. Clones refer to the same cluster.
#[derive(Clone, Debug)]
pub enum Cluster {
    /// A control plane that stops when the last clone is dropped.
    Own(Arc<ControlPlane>),
    /// A control plane that stops with this process.
    Shared(&'static ControlPlane),
    /// The cluster of a user's kubeconfig.
    Existing(Kubectl),
}

impl Cluster {
    /// kubectl with all permissions.
    #[must_use]
    pub fn kubectl(&self) -> &Kubectl {
        match self {
            Self::Existing(kubectl) => kubectl,
            Self::Own(plane) => plane.admin(),
            Self::Shared(plane) => plane.admin(),
        }
    }

    /// The control plane, if the kit started it.
    #[must_use]
    pub fn plane(&self) -> Option<&ControlPlane> {
        match self {
            Self::Existing(_) => None,
            Self::Own(plane) => Some(plane),
            Self::Shared(plane) => Some(plane),
        }
    }

    /// Installs the CustomResourceDefinitions, only once for each control plane of the kit.
    pub(super) async fn define(&self) -> Result<()> {
        match self.plane() {
            Some(plane) => chart::install_crds_once(plane).await,
            None => chart::install_crds(self.kubectl()).await,
        }
    }
}

impl From<&'static ControlPlane> for Cluster {
    fn from(plane: &'static ControlPlane) -> Self {
        Self::Shared(plane)
    }
}

impl From<ControlPlane> for Cluster {
    fn from(plane: ControlPlane) -> Self {
        Self::Own(Arc::new(plane))
    }
}

impl From<Kubectl> for Cluster {
    fn from(kubectl: Kubectl) -> Self {
        Self::Existing(kubectl)
    }
}

impl From<&Self> for Cluster {
    fn from(cluster: &Self) -> Self {
        cluster.clone()
    }
}
