"""What hyperopt 0.3.0's MongoDB engine calls on PyMongo 3 and PyMongo 4 has no more: `OldDatabase(client, "faces")`.

Only the calls that optimize_hyperparams.py leads to are put back; hyperopt's others (`update`, `remove`, `count`,
`authenticate`) are done here by PyMongo 4's own.
"""

from typing import Any

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.database import Database


class OldDatabase(Database):
    """A database whose collections have the old calls too."""

    def __getitem__(self, name: str) -> "OldCollection":
        return OldCollection(self, name)


class OldCollection(Collection):
    def insert(self, document: dict[str, Any]) -> Any:
        """For MongoTrials.insert_trial_docs."""
        return self.insert_one(document).inserted_id

    def find_and_modify(self, query: dict, update: dict, new: bool = False, upsert: bool = False) -> dict | None:
        """For MongoJobs.reserve and MongoTrials.new_trial_ids."""
        document = ReturnDocument.AFTER if new else ReturnDocument.BEFORE
        return self.find_one_and_update(query, update, upsert=upsert, return_document=document)
