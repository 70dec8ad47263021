package store

// KeepEvents bounds the events kept.
func (db *DB) KeepEvents(n int64) { db.keep = n }
