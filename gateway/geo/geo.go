// Package geo tells where addresses are, from MaxMind DB files that the operator
// provides. An address that no file knows is "unknown", which is never "safe".
//
// [Open] reads files once; [Live] keeps up with files that are replaced on disk.
package geo

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/oschwald/geoip2-golang/v2"
)

// maxFile bounds a database file; the largest published city file has about 130 MB.
const maxFile = 512 << 20

// What a database tells.
const (
	ASN     = "asn"
	Country = "country"
)

// Places are loaded files. They are immutable and safe for concurrent use. The zero
// value knows no address.
type Places struct {
	asn, country []*database
}

// database is a file in memory.
type database struct {
	*geoip2.Reader
	kind    string    // ASN or Country
	built   time.Time // by who published it
	damaged atomic.Bool
}

// Open loads files into memory, so that replacing one on disk disturbs nobody. Of
// those that cannot be read the error tells, and the others are loaded.
func Open(files []string) (*Places, error) {
	p := new(Places)
	var faults []error
	for _, file := range files {
		db, err := read(file)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		p.add(db)
	}
	return p, errors.Join(faults...)
}

func (p *Places) add(db *database) {
	if db.kind == ASN {
		p.asn = append(p.asn, db)
	} else {
		p.country = append(p.country, db)
	}
}

func read(file string) (*database, error) {
	fault := func(err error) (*database, error) { return nil, fmt.Errorf("geoip file %s: %w", file, err) }
	info, err := os.Stat(file)
	if err != nil {
		return fault(err)
	}
	if info.Size() > maxFile {
		return fault(fmt.Errorf("%d bytes, want at most %d", info.Size(), maxFile))
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return fault(err)
	}
	db, err := parse(data)
	if err != nil {
		return fault(err)
	}
	return db, nil
}

func parse(data []byte) (*database, error) {
	reader, err := geoip2.OpenBytes(data)
	if err != nil {
		return nil, fmt.Errorf("not a MaxMind DB file, or a damaged one: %w", err)
	}
	db := &database{Reader: reader, built: reader.Metadata().BuildTime()}
	switch kind := reader.Metadata().DatabaseType; {
	case strings.Contains(kind, "ASN"), strings.Contains(kind, "ISP"):
		db.kind = ASN
	case strings.Contains(kind, "Country"), strings.Contains(kind, "City"), strings.Contains(kind, "Enterprise"):
		db.kind = Country
	default:
		return nil, fmt.Errorf("holds %q, want an ASN, Country or City database", kind)
	}
	return db, nil
}

// Locate returns the autonomous system and the country (ISO 3166-1 alpha-2) of a.
// Where a file turns out damaged a is unknown to it.
func (p *Places) Locate(a netip.Addr) (asn uint32, country string) {
	if !a.IsValid() {
		return 0, ""
	}
	for _, db := range p.asn {
		r, err := db.ASN(a)
		if err != nil {
			db.damaged.Store(true)
		} else if r.HasData() {
			asn = uint32(r.AutonomousSystemNumber)
			break
		}
	}
	for _, db := range p.country {
		r, err := db.Country(a)
		if err != nil {
			db.damaged.Store(true)
		} else if r.HasData() && isCountry(r.Country.ISOCode) {
			country = r.Country.ISOCode
			break
		}
	}
	return asn, country
}

func isCountry(code string) bool {
	return len(code) == 2 && 'A' <= code[0] && code[0] <= 'Z' && 'A' <= code[1] && code[1] <= 'Z'
}
