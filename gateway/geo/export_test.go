package geo

// Parse is the places of a file with this content.
func Parse(data []byte) (*Places, error) {
	db, err := parse(data)
	if err != nil {
		return new(Places), err
	}
	p := new(Places)
	p.add(db)
	return p, nil
}
