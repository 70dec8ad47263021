package breached

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

const (
	maxPairLine = 4096       // bytes
	maxPairs    = 10_000_000 // lines
	maxPairName = 320        // bytes; no login name is longer
)

// Separators are what stands between name and password, by the name of the format. "auto"
// takes whichever of them is first in a line.
var Separators = map[string]string{"auto": ":;,\t", "colon": ":", "semicolon": ";", "csv": ",", "tab": "\t"}

// PairsRead is what a list of pairs was made of.
type PairsRead struct {
	Lines      int
	Unreadable int // lines without a separator, without a name, too long, or not UTF-8
}

// Pairs reads a list of names and passwords, one pair in a line, and hands each name to
// take. What follows the name is skipped unseen: it is neither kept nor compared. In CSV
// a name may be quoted; a first line that heads the columns is a name like another, which
// nobody has. At most ten million lines of 4,096 bytes are read; errors show none.
func Pairs(ctx context.Context, r io.Reader, format string, take func(name string) error) (read PairsRead, err error) {
	separators, ok := Separators[format]
	if !ok {
		return read, fmt.Errorf("unknown format %.20q: want auto, colon, semicolon, csv or tab", format)
	}
	in := bufio.NewReaderSize(r, maxPairLine)
	for {
		line, err := in.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) { // the rest of a line too long
			_, err = in.ReadSlice('\n')
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return read, err
		}
		if len(line) > 0 {
			if read.Lines++; read.Lines > maxPairs {
				return read, fmt.Errorf("the list has more than %d lines: split it", maxPairs)
			}
			if read.Lines%pause == 0 && ctx.Err() != nil {
				return read, ctx.Err()
			}
			if read.Lines == 1 {
				line = bytes.TrimPrefix(line, []byte("\ufeff"))
			}
			if name, ok := pairName(line, separators); !ok || long {
				read.Unreadable++
			} else if err := take(name); err != nil {
				return read, err
			}
		}
		if err != nil {
			return read, nil
		}
	}
}

// pairName is what stands before the separator.
func pairName(line []byte, separators string) (string, bool) {
	var name []byte
	if rest, quoted := bytes.CutPrefix(line, []byte{'"'}); quoted && bytes.ContainsAny([]byte(separators), ",;\t") {
		end := bytes.IndexByte(rest, '"')
		if end < 0 || end+1 == len(rest) || bytes.IndexByte([]byte(separators), rest[end+1]) < 0 {
			return "", false
		}
		name = rest[:end]
	} else {
		end := bytes.IndexAny(line, separators)
		if end < 0 {
			return "", false
		}
		name = line[:end]
	}
	name = bytes.TrimSpace(name)
	if len(name) == 0 || len(name) > maxPairName || !utf8.Valid(name) {
		return "", false
	}
	return string(name), true
}
