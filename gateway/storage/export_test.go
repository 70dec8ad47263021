package storage

// ParseKeyring and WriteKeyring are the codec of the file.
var (
	ParseKeyring = parseKeyring
	WriteKeyring = writeKeyring
)

// SameKeys reports whether two lists hold equal keys in the same order.
func SameKeys(a, b []Key) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].ID != b[i].ID || a[i].Purpose != b[i].Purpose || a[i].Old != b[i].Old || !a[i].Created.Equal(b[i].Created) || string(a[i].Bytes()) != string(b[i].Bytes()) {
			return false
		}
	}
	return true
}
