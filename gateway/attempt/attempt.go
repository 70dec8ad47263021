// Package attempt reads a login request the way the laxest backend might.
//
// Who attacks a log-in hides names from whoever counts them: the same field
// twice, another spelling, another content type, another character set, a second
// document behind the first. A reader that follows the rules would see one name
// and the backend another. So [Reader.Read] follows all rules at once and
// promises:
//
//   - Whatever name a plain backend would take from the request, be it from a
//     JSON, urlencoded, multipart or text body or from the query, is among
//     Attempt.Pairs, whatever type the request declares.
//   - An attempt that can be read in one way only is not Ambiguous; any other is,
//     and says Why in one word of a closed set.
//   - The body can be read afterwards from the same request, byte for byte, also
//     when reading it ended in an error. No more than MaxBody and one byte are
//     read before the backend asks for them.
//   - Work and memory are linear in the bytes read; nothing recurses.
//
// Names come as typed; who counts them brings them to a canonical form. In an
// ambiguous attempt a name may be a piece of the body that no backend would take
// for one, a password within it: count it by its hash, never show or store it.
//
// It does not inflate bodies (Content-Encoding is an error), read XML, or look
// into values that are documents themselves.
package attempt

import (
	"fmt"
	"log/slog"
	"strconv"
)

// MaxPairs is how many pairs an attempt may carry.
const MaxPairs = 64

// Why an attempt is ambiguous. Of several reasons the first in this order is
// given.
const (
	None      = "none"      // no name is found at all
	Many      = "many"      // more than MaxPairs pairs
	Type      = "type"      // the content type is missing, said twice, unknown, or another one than the body shows
	Charset   = "charset"   // a byte order mark, UTF-16, UTF-32, or a declared character set other than UTF-8
	UTF8      = "utf8"      // not valid in its character set
	Syntax    = "syntax"    // the body breaks the rules of the type it declares
	Trailing  = "trailing"  // something follows the end of the document
	Duplicate = "duplicate" // a field comes twice with different values
	Place     = "place"     // a field is found where it is not expected: the query, a nested object, an operator, a file
	Spelling  = "spelling"  // a field's name is written otherwise: case, spaces, escapes, brackets
	Array     = "array"     // an array of log-ins, or of values, where the backend did not say it takes any
)

// doubt is a set of reasons, one bit each, in the order above.
type doubt uint16

const (
	ofNone doubt = 1 << iota
	ofMany
	ofType
	ofCharset
	ofUTF8
	ofSyntax
	ofTrailing
	ofDuplicate
	ofPlace
	ofSpelling
	ofArray
)

var reasons = [...]string{None, Many, Type, Charset, UTF8, Syntax, Trailing, Duplicate, Place, Spelling, Array}

// String is the first reason of d, or nothing.
func (d doubt) String() string {
	for i, reason := range reasons {
		if d&(1<<i) != 0 {
			return reason
		}
	}
	return ""
}

// Pair is a name and a password tried with it, as typed. The password is empty
// when the request carries none. Printing, logging and encoding a pair leaves the
// password out.
type Pair struct {
	Name     string `json:"name"`
	Password string `json:"-"`
}

// String leaves the password out.
func (p Pair) String() string { return strconv.Quote(p.Name) }

// GoString leaves the password out.
func (p Pair) GoString() string { return "attempt.Pair{Name:" + strconv.Quote(p.Name) + "}" }

// Attempt is what a login request carries. The zero value carries nothing.
type Attempt struct {
	Pairs     []Pair // each once; those a backend would expect come first
	Ambiguous bool   // the request can be read in more than one way, or in none
	Why       string // why it is ambiguous: one of this package's words, or empty
	Size      int64  // bytes of the body
	JSON      bool   // the body declares itself, or turns out, to be JSON
}

// String shows neither names nor passwords.
func (a Attempt) String() string {
	s := fmt.Sprintf("%d pairs in %d bytes", len(a.Pairs), a.Size)
	if a.Ambiguous {
		s += ", ambiguous: " + a.Why
	}
	return s
}

// GoString shows neither names nor passwords.
func (a Attempt) GoString() string { return "attempt.Attempt{" + a.String() + "}" }

// LogValue shows neither names nor passwords.
func (a Attempt) LogValue() slog.Value {
	return slog.GroupValue(
		slog.Int("pairs", len(a.Pairs)), slog.Int64("size", a.Size),
		slog.Bool("ambiguous", a.Ambiguous), slog.String("why", a.Why), slog.Bool("json", a.JSON),
	)
}
