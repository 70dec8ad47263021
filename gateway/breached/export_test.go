package breached

import (
	"crypto/sha256"
	"time"
)

// Parse reads a file's content.
var Parse = parse

// Sealed is content with the checksum that it should have.
func Sealed(content []byte) []byte {
	sum := sha256.Sum256(content)
	return append(content[:len(content):len(content)], sum[:]...)
}

// SetWait sets how long a question to a server may take.
func (r *Ranges) SetWait(d time.Duration) { r.wait = d }

// Cached is how many ranges are kept.
func (r *Ranges) Cached() int { return r.cache.order.Len() }

// Look is one look at the file, as Run has every ten seconds.
func (p *Passwords) Look() { p.look() }

// ReadRange reads an answer of a server.
var ReadRange = readRange
