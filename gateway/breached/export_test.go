package breached

import "crypto/sha256"

// Parse reads a file's content.
var Parse = parse

// Sealed is content with the checksum that it should have.
func Sealed(content []byte) []byte {
	sum := sha256.Sum256(content)
	return append(content[:len(content):len(content)], sum[:]...)
}
