package storage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kidoban/kidoban/gateway/record"
)

// The files of a backup.
const (
	manifestName = "backup.json"
	sealedName   = "keys.sealed"
	dumpName     = "kidoban.pgdump"

	manifestMax = 64 << 20 // bytes; the record has a line for each segment
)

// manifest lists what a backup holds. It is written last: a backup without one is
// not complete.
type manifest struct {
	Version  int               `json:"version"`
	Made     time.Time         `json:"made"`
	Database string            `json:"database"` // the kind
	Files    map[string]string `json:"files"`    // SHA-256 by name below the directory
}

// BackupResult says what a backup holds and what is left to do by hand.
type BackupResult struct {
	Files []string // below the directory, sorted
	// Dump is the command that saves a PostgreSQL database into the same directory,
	// empty for SQLite. It holds no password.
	Dump string
	// Keyless is set where the keyring is not part of the backup.
	Keyless bool
}

// Backup saves the data directory of a gate, which may run meanwhile, into a new
// directory: a SQLite database as of one moment, then the record (so that it knows
// every act that the database knows), and the keyring under a passphrase; without a
// passphrase it is left out. A PostgreSQL database is saved by PostgreSQL's own
// program: the result says how. After an error nothing is left in the directory.
func Backup(ctx context.Context, o Options, to string, passphrase []byte, now time.Time) (_ BackupResult, err error) {
	kind, err := kindOf(o.Database)
	if err != nil {
		return BackupResult{}, err
	}
	if len(passphrase) > 0 {
		if err := checkPassphrase(passphrase); err != nil {
			return BackupResult{}, err
		}
	}
	if err := outside(filepath.Join(o.DataDir, recordName), to); err != nil {
		return BackupResult{}, err
	}
	undo := emptyDir
	if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
		undo = os.RemoveAll
	}
	if err := newDir(to); err != nil {
		return BackupResult{}, err
	}
	defer func() {
		if err != nil { // half a backup takes the room that perhaps was missing
			err = errors.Join(err, undo(to))
		}
	}()
	m := manifest{Version: 1, Made: now.UTC(), Database: kind.String(), Files: make(map[string]string)}
	var result BackupResult
	if kind == sqlite {
		if err := saveSQLite(ctx, filepath.Join(o.DataDir, databaseName), filepath.Join(to, databaseName)); err != nil {
			return BackupResult{}, err
		}
		if m.Files[databaseName], err = hashFile(filepath.Join(to, databaseName)); err != nil {
			return BackupResult{}, err
		}
	} else if result.Dump, err = dumpCommand(o.Database, filepath.Join(to, dumpName)); err != nil {
		return BackupResult{}, err
	}
	if err := copyTree(ctx, filepath.Join(o.DataDir, recordName), to, recordName, m.Files); err != nil {
		return BackupResult{}, fmt.Errorf("saving the record: %w", err)
	}
	sum, err := copyFile(filepath.Join(o.DataDir, memoryName), filepath.Join(to, memoryName))
	if err == nil {
		m.Files[memoryName] = sum
	} else if !errors.Is(err, fs.ErrNotExist) {
		return BackupResult{}, fmt.Errorf("saving what the detectors learned: %w", err)
	}
	if len(passphrase) == 0 {
		result.Keyless = true
	} else {
		k, err := OpenKeyring(filepath.Join(o.DataDir, keyringName), false)
		if err != nil {
			return BackupResult{}, err
		}
		sealed, err := k.Sealed(passphrase)
		if err != nil {
			return BackupResult{}, err
		}
		if err := replaceFile(filepath.Join(to, sealedName), sealed); err != nil {
			return BackupResult{}, fmt.Errorf("saving the keyring: %w", err)
		}
		if m.Files[sealedName], err = hashFile(filepath.Join(to, sealedName)); err != nil {
			return BackupResult{}, err
		}
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return BackupResult{}, err
	}
	if len(text) >= manifestMax {
		return BackupResult{}, fmt.Errorf("the record has too many files (%d) for a backup: move old segments away", len(m.Files))
	}
	if err := replaceFile(filepath.Join(to, manifestName), append(text, '\n')); err != nil {
		return BackupResult{}, fmt.Errorf("finishing the backup: %w", err)
	}
	for name := range m.Files {
		result.Files = append(result.Files, name)
	}
	slices.Sort(result.Files)
	return result, nil
}

// Restore makes a data directory from a backup: every file is checked against the
// backup's list, and the keyring opened with the passphrase. The directory must not
// hold a gate's data. Without a keyring in the backup the passphrase is empty, and
// the keyring is to be brought there before the gate starts. The record goes on
// behind a gap ([record.MarkRestored]), since what was lost had the next numbers; an
// error about that alone leaves what was restored, and names come with it.
func Restore(ctx context.Context, from, dir string, passphrase []byte) ([]string, error) {
	names, err := restore(ctx, from, dir, passphrase)
	if err != nil {
		return nil, err
	}
	return names, markRecord(dir)
}

func restore(ctx context.Context, from, dir string, passphrase []byte) (names []string, err error) {
	m, err := readManifest(from)
	if err != nil {
		return nil, err
	}
	if err := ownDir(dir); err != nil {
		return nil, err
	}
	for _, name := range []string{databaseName, keyringName, sealedName, recordName, memoryName} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return nil, fmt.Errorf("%s holds a %s already: restore into a new directory", dir, name)
		}
	}
	_, sealed := m.Files[sealedName]
	if sealed && len(passphrase) == 0 {
		return nil, errors.New("the backup holds the keyring, and no passphrase is given to open it")
	}
	for name := range m.Files {
		names = append(names, name)
	}
	slices.Sort(names)
	defer func() {
		if err != nil {
			for _, name := range []string{databaseName, keyringName, sealedName, recordName, memoryName} {
				err = errors.Join(err, os.RemoveAll(filepath.Join(dir, name)))
			}
			names = nil
		}
	}()
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		sum, err := copyFile(filepath.Join(from, name), filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("restoring %s: %w", name, err)
		}
		if sum != m.Files[name] {
			return nil, fmt.Errorf("restoring %s: the file in the backup is not the one that was saved (SHA-256 %s, want %s)", name, sum, m.Files[name])
		}
	}
	if sealed {
		data, err := os.ReadFile(filepath.Join(dir, sealedName))
		if err != nil {
			return nil, err
		}
		if _, err := ImportKeyring(filepath.Join(dir, keyringName), data, passphrase); err != nil {
			return nil, err
		}
		if err := os.Remove(filepath.Join(dir, sealedName)); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// markRecord says in a restored directory that its record is an older copy.
func markRecord(dir string) error {
	path := filepath.Join(dir, recordName)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := record.MarkRestored(path); err != nil {
		return fmt.Errorf("all files are restored, but the record cannot be written on as it was saved: %w. Run kidoban record fsck --repair-tail %s", err, path)
	}
	return nil
}

func readManifest(from string) (manifest, error) {
	f, err := os.Open(filepath.Join(from, manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return manifest{}, fmt.Errorf("%s holds no %s: it is not a backup, or one that was cut off", from, manifestName)
	}
	if err != nil {
		return manifest{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, manifestMax+1))
	if err != nil {
		return manifest{}, err
	}
	m, err := parseManifest(data)
	if err != nil {
		return manifest{}, fmt.Errorf("%s: %w", filepath.Join(from, manifestName), err)
	}
	return m, nil
}

// parseManifest reads a list of files, all of which are below the directory.
func parseManifest(data []byte) (manifest, error) {
	var m manifest
	if len(data) > manifestMax {
		return manifest{}, fmt.Errorf("it has more than %d bytes", manifestMax)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return manifest{}, errors.New("it is not the list of a backup")
	}
	if m.Version != 1 {
		return manifest{}, fmt.Errorf("it is of version %d and this program knows version 1", m.Version)
	}
	for name, sum := range m.Files {
		known := name == databaseName || name == sealedName || name == memoryName || strings.HasPrefix(name, recordName+"/")
		if !known || !fs.ValidPath(name) || !filepath.IsLocal(name) {
			return manifest{}, fmt.Errorf("it lists a file %.100q, which is none of a backup", name)
		}
		if b, err := hex.DecodeString(sum); err != nil || len(b) != sha256.Size {
			return manifest{}, fmt.Errorf("the SHA-256 of %s is not one", name)
		}
	}
	return m, nil
}

// saveSQLite writes a consistent copy of a database that others may be writing.
func saveSQLite(ctx context.Context, file, to string) (err error) {
	if _, err := os.Stat(file); err != nil {
		return fmt.Errorf("there is no database to save (%w): name the data_dir of the gate, and its database if that is PostgreSQL", err)
	}
	// The copy is made here first so that nobody else can ever read it.
	f, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	db, err := readSQLite(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	conn, err := db.sql.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	// The connection is read-only already; this would keep it from writing the copy.
	if _, err := conn.ExecContext(ctx, `PRAGMA query_only = OFF`); err != nil {
		return err
	}
	if _, err := conn.ExecContext(ctx, `VACUUM INTO ?`, to); err != nil {
		return fmt.Errorf("saving the database: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("saving the database: %w", err)
	}
	return checkSQLite(ctx, to)
}

// checkSQLite reads all of a copy.
func checkSQLite(ctx context.Context, file string) (err error) {
	db, err := readSQLite(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var said string
	if err := db.sql.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&said); err != nil {
		return fmt.Errorf("checking the copy of the database: %w", err)
	}
	if said != "ok" {
		return fmt.Errorf("the copy of the database is damaged: %s", said)
	}
	return nil
}

// dumpCommand is how to save a PostgreSQL database, without its password.
func dumpCommand(address, to string) (string, error) {
	config, err := postgresConfig(address, "")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("pg_dump --format=custom --no-owner --no-privileges --host=%s --port=%d --username=%s --file=%s %s",
		quote(config.Host), config.Port, quote(config.User), quote(to), quote(config.Database)), nil
}

// quote is an argument as a POSIX shell wants it.
func quote(s string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("./_-:", r)
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// newDir makes a directory that only we can read, or takes an empty one.
func newDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	there, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(there) > 0 {
		return fmt.Errorf("%s is not empty: name a new directory", dir)
	}
	return nil
}

// emptyDir removes what is in a directory.
func emptyDir(dir string) error {
	there, err := os.ReadDir(dir)
	for _, e := range there {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// outside refuses a directory within the one that is to be saved there, which would
// save itself.
func outside(saved, to string) error {
	a, err := filepath.Abs(saved)
	if err != nil {
		return err
	}
	b, err := filepath.Abs(to)
	if err != nil {
		return err
	}
	if below, err := filepath.Rel(a, b); err == nil && filepath.IsLocal(below) {
		return fmt.Errorf("%s is within the record that is to be saved: name a directory elsewhere, best on another disk", to)
	}
	return nil
}

// passing reports whether a file of the record is of use only to the process that
// writes there.
func passing(name string) bool {
	return name == "lock" || name == "reserve" || strings.HasSuffix(name, ".new")
}

// copyTree copies the plain files below a directory, which may be missing. Files
// that grow meanwhile are copied as far as they were.
func copyTree(ctx context.Context, from, to, name string, sums map[string]string) error {
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !e.Type().IsRegular() || passing(e.Name()) {
			return nil
		}
		below, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		at := name + "/" + filepath.ToSlash(below)
		sums[at], err = copyFile(path, filepath.Join(to, at))
		if errors.Is(err, fs.ErrNotExist) { // its time was over
			delete(sums, at)
			return nil
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// copyFile copies a plain file and returns the SHA-256 of what it wrote.
func copyFile(from, to string) (sum string, err error) {
	in, err := os.Open(from)
	if err != nil {
		return "", err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a plain file", from)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return "", err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(out, h), io.LimitReader(in, info.Size())); err != nil {
		return "", err
	}
	if err := out.Sync(); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), syncDir(filepath.Dir(to))
}

func hashFile(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
