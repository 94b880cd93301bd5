-- The call whose answer a call was given, by its receipt or from the cache, or that it asks again for.
ALTER TABLE call RENAME COLUMN receipt_of TO answer_of;
