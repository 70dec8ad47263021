package feed

// FieldNames are the names of each field of a line, its own first.
func FieldNames() (all [][]string) {
	for _, f := range fields {
		all = append(all, f.names)
	}
	return all
}
