"""Lets the MongoDB engine of hyperopt 0.3.0 run with PyMongo 4: `OldDatabase(client, "faces")`.

The engine uses methods of PyMongo 3 that PyMongo 4 no longer has. This module restores only those that
optimize_hyperparams.py needs. The toolkit uses PyMongo 4's own methods in place of hyperopt's other old calls
(`update`, `remove`, `count`, `authenticate`).
"""

from typing import Any

from pymongo import ReturnDocument
from pymongo.collection import Collection
from pymongo.database import Database


class OldDatabase(Database):
    """A database whose collections also have the old methods."""

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
