-- Who asked, in which class, and what the gateway spared or spent on it.
ALTER TABLE usage ADD COLUMN tenant        TEXT;
ALTER TABLE usage ADD COLUMN key_id        TEXT;
ALTER TABLE usage ADD COLUMN priority      TEXT;
ALTER TABLE usage ADD COLUMN cache         TEXT;    -- hit, miss, joined, …; NULL where no cache was asked
ALTER TABLE usage ADD COLUMN cached_tokens INTEGER; -- tokens of the prompt that the backend had in its own cache
ALTER TABLE usage ADD COLUMN attempts      INTEGER; -- how often a backend was asked

CREATE INDEX usage_by_tenant ON usage (tenant, started_at_ms);
