package storage

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// OpenKeyring opens the keyring of the data directory and compares it with the
// database, see [DB.CheckKeyring]. Where both are new it makes one. Nodes that start
// at once on a new database do not make two: the second is told to copy that of the
// first.
func (db *DB) OpenKeyring(ctx context.Context) (*Keyring, error) {
	file := filepath.Join(db.dir, keyringName)
	var k *Keyring
	err := db.withKeys(ctx, func(tx *sql.Tx, known []knownKey) error {
		var err error
		if k, err = OpenKeyring(file, db.fresh && len(known) == 0); err != nil {
			return err
		}
		return db.recognize(ctx, tx, known, k)
	})
	if err != nil {
		return nil, err
	}
	return k, nil
}

// CheckKeyring compares a keyring with what the database knows of the keys that its
// contents were made with, and adds the keyring's new keys to that. The error says
// that the keyring is of another installation, or lacks a key that another node
// has: then this node must not start, and one that runs must get the file before
// that key comes into force. It may be called every now and then.
func (db *DB) CheckKeyring(ctx context.Context, k *Keyring) error {
	return db.withKeys(ctx, func(tx *sql.Tx, known []knownKey) error { return db.recognize(ctx, tx, known, k) })
}

// knownKey is a row of storage_keys.
type knownKey struct {
	id      string
	purpose Purpose
	proof   []byte
	retired int64 // Unix microseconds; 0: not
}

// withKeys calls f with what is known, in a transaction that no other node shares.
func (db *DB) withKeys(ctx context.Context, f func(*sql.Tx, []knownKey) error) error {
	tx, err := db.sql.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("comparing the keyring with the database: %w", err)
	}
	defer tx.Rollback()
	known, err := db.knownKeys(ctx, tx)
	if err != nil {
		return fmt.Errorf("comparing the keyring with the database: %w", err)
	}
	if err := f(tx, known); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("comparing the keyring with the database: %w", err)
	}
	return nil
}

func (db *DB) knownKeys(ctx context.Context, tx *sql.Tx) (known []knownKey, err error) {
	if db.dialect == postgres {
		if _, err := tx.ExecContext(ctx, `LOCK TABLE storage_keys IN EXCLUSIVE MODE`); err != nil {
			return nil, err
		}
	}
	rows, err := tx.QueryContext(ctx, `SELECT id, purpose, proof, retired FROM storage_keys ORDER BY id`)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var k knownKey
		if err := rows.Scan(&k.id, &k.purpose, &k.proof, &k.retired); err != nil {
			return nil, err
		}
		known = append(known, k)
	}
	return known, rows.Err()
}

func (db *DB) recognize(ctx context.Context, tx *sql.Tx, known []knownKey, k *Keyring) error {
	keys := make(map[string]Key)
	for _, key := range k.ring.Load().keys {
		keys[key.ID] = key
	}
	var lacking []string
	found := 0
	for _, old := range known {
		key, ok := keys[old.id]
		delete(keys, old.id)
		switch {
		case ok && (key.Purpose != old.purpose || !hmac.Equal(proof(key), old.proof)):
			return fmt.Errorf("the keyring %s holds another secret or purpose as %s than the one that the database was used with: restore it from the backup, or copy it from another node", k.file, key)
		case ok:
			found++
			if at := micro(key.Retired); at != old.retired {
				if _, err := tx.ExecContext(ctx, db.dialect.query(`UPDATE storage_keys SET retired = ? WHERE id = ?`), at, old.id); err != nil {
					return fmt.Errorf("noting a retired key: %w", err)
				}
			}
		case old.retired != 0 && spent(old.purpose, time.UnixMicro(old.retired), k.now()):
			if _, err := tx.ExecContext(ctx, db.dialect.query(`DELETE FROM storage_keys WHERE id = ?`), old.id); err != nil {
				return fmt.Errorf("forgetting a key: %w", err)
			}
		default:
			lacking = append(lacking, fmt.Sprintf("%.64s for %s", old.id, old.purpose))
		}
	}
	switch {
	case len(lacking) > 0 && found == 0:
		return fmt.Errorf("the keyring %s is of another installation than the database: restore the right one from the backup, or copy it from another node (move this one away first)", k.file)
	case len(lacking) > 0:
		return fmt.Errorf("the keyring %s lacks keys that another node has: %s: copy the file from the node where `kidoban keys rotate` ran, or use keys export and import",
			k.file, strings.Join(lacking, ", "))
	}
	for _, key := range keys {
		if _, err := tx.ExecContext(ctx, db.dialect.query(`INSERT INTO storage_keys (id, purpose, proof, retired) VALUES (?, ?, ?, ?)`),
			key.ID, string(key.Purpose), proof(key), micro(key.Retired)); err != nil {
			return fmt.Errorf("noting the key %s: %w", key.ID, err)
		}
	}
	return nil
}

// proof shows that a key is known without telling anything of it.
func proof(k Key) []byte {
	mac := hmac.New(sha256.New, k.Bytes())
	mac.Write([]byte("kidoban keyring\x00" + string(k.Purpose) + "\x00" + k.ID))
	return mac.Sum(nil)[:16]
}

func micro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// query writes the placeholders of a statement that uses ?. No statement of this
// package has a question mark in a literal.
func (d dialect) query(text string) string {
	if d != postgres {
		return text
	}
	var b strings.Builder
	n := 0
	for _, c := range text {
		if c != '?' {
			b.WriteRune(c)
			continue
		}
		n++
		b.WriteString("$" + strconv.Itoa(n))
	}
	return b.String()
}
