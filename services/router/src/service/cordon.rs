//! Keeping new namespaces away from a shard.

use airfleet_domain::ids::ShardName;

use super::{Error, Service, ShardStatus, Who};
use crate::store::{Batch, Cordon, ShardRecord};

impl Service {
    /// Keeps new namespaces away from a shard; what it has stays. Repeating it changes who and why.
    pub(crate) async fn cordon(&self, shard: &ShardName, who: Who) -> Result<ShardStatus, Error> {
        self.set_cordon(shard, Some(who)).await
    }

    /// Lifts a cordon.
    pub(crate) async fn uncordon(&self, shard: &ShardName) -> Result<ShardStatus, Error> {
        self.set_cordon(shard, None).await
    }

    async fn set_cordon(&self, name: &ShardName, who: Option<Who>) -> Result<ShardStatus, Error> {
        let leader = self.leader()?;
        let mut turn = leader.turn().await?;
        let stamp = turn.stamp();
        let known = leader.fleet().shard(name.as_str()).map(|shard| shard.record.clone());
        let known = known.ok_or_else(|| Error::NoShard(name.to_string()))?;
        let cordon =
            who.map(|who| Cordon { actor: who.actor, reason: who.reason, time_us: stamp.now_us });
        if cordon.is_some() || known.cordon.is_some() {
            let record = ShardRecord { cordon, revision: stamp.revision, ..known };
            turn.commit(Batch { shards: vec![record], ..Batch::default() }).await?;
        }
        drop(turn);
        self.shard_status_of(&leader, name.as_str()).ok_or_else(|| Error::NoShard(name.to_string()))
    }
}
