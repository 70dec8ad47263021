package breached

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	maxLine    = 128 // bytes; a hash and a count have at most 61
	rangeChars = 5   // of a hash, which name a range
	ntlmChars  = 32
	pause      = 1 << 14 // lines between looks at whether to go on
)

// lists reads lists and hands each entry to take.
type lists struct {
	stdin io.Reader
	take  func(sum [sha1.Size]byte, count uint64) error

	date time.Time // of the newest
	line uint64
}

// read reads one list: a file, "-" for standard input, or a folder of files that are
// named by the five characters that the hashes in them begin with, with .txt or without.
func (l *lists) read(ctx context.Context, name string) error {
	if name == "-" {
		return l.lines(ctx, "standard input", "", l.stdin)
	}
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return l.folder(ctx, name)
	}
	return l.file(ctx, name, "")
}

func (l *lists) file(ctx context.Context, name, prefix string) (err error) {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.ModTime().After(l.date) {
		l.date = info.ModTime()
	}
	return l.lines(ctx, name, prefix, f)
}

// folder reads files of ranges, in the order in which the folder has them.
func (l *lists) folder(ctx context.Context, name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	read := 0
	for {
		entries, err := dir.Readdirnames(1000)
		for _, entry := range entries {
			if strings.HasPrefix(entry, ".") {
				continue
			}
			prefix := strings.TrimSuffix(entry, ".txt")
			if _, err := strconv.ParseUint(prefix, 16, 20); err != nil || len(prefix) != rangeChars {
				return fmt.Errorf("%s: want a file of one range, named such as 0A1B2.txt; name a single list as a file", filepath.Join(name, entry))
			}
			if err := l.file(ctx, filepath.Join(name, entry), prefix); err != nil {
				return err
			}
			read++
		}
		switch {
		case errors.Is(err, io.EOF) && read == 0:
			return fmt.Errorf("%s: the folder has no files of ranges, such as 0A1B2.txt", name)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// lines reads entries, whose hashes lack prefix.
func (l *lists) lines(ctx context.Context, name, prefix string, r io.Reader) error {
	in := bufio.NewReaderSize(r, 1<<16)
	for number := 1; ; number++ {
		line, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("%s: %w", name, err)
		}
		if l.line++; l.line%pause == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if number == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		if text := bytes.TrimRight(line, "\r\n"); len(text) > 0 {
			sum, count, fault := entry(prefix, text)
			if fault != nil {
				return fmt.Errorf("%s: line %d: %w", name, number, fault)
			}
			if err := l.take(sum, count); err != nil {
				return err
			}
		}
		if err != nil { // the end; a buffer that is full was a line too long
			return nil
		}
	}
}

// entry reads HASH:COUNT. A line may be anything, also a password, so errors show none.
func entry(prefix string, line []byte) (sum [sha1.Size]byte, count uint64, err error) {
	if len(line) > maxLine {
		return sum, 0, fmt.Errorf("is longer than %d bytes: want HASH:COUNT", maxLine)
	}
	hash, number, ok := bytes.Cut(line, []byte{':'})
	if n := len(prefix) + len(hash); n == ntlmChars && isHex(hash) {
		return sum, 0, errors.New("has an NTLM hash, which passwords cannot be compared with here: get the list of SHA-1 hashes")
	} else if n != hex.EncodedLen(sha1.Size) || !isHex(hash) {
		return sum, 0, errors.New("want HASH:COUNT, with a SHA-1 hash of 40 hexadecimal digits (35 in a file of one range)")
	}
	if !ok {
		return sum, 0, errors.New("has no count: want HASH:COUNT")
	}
	var text [2 * sha1.Size]byte
	copy(text[copy(text[:], prefix):], hash)
	if _, err := hex.Decode(sum[:], text[:]); err != nil {
		return sum, 0, err
	}
	if count, err = strconv.ParseUint(string(number), 10, 63); err != nil {
		return sum, 0, errors.New("has no number after the colon: want HASH:COUNT")
	}
	return sum, count, nil
}

func isHex(text []byte) bool {
	for _, c := range text {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return len(text) > 0
}
