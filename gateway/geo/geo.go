// Package geo tells where addresses are, from MaxMind DB files that the operator
// provides. An address that no file knows is "unknown", which is never "safe".
package geo

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/oschwald/geoip2-golang/v2"
)

// maxFile bounds a database file; the largest published city file has about 130 MB.
const maxFile = 512 << 20

// Places are loaded files. They are immutable and safe for concurrent use.
type Places struct {
	asn, country []*geoip2.Reader
}

// Open loads files into memory, so that replacing one on disk disturbs nobody.
func Open(files []string) (*Places, error) {
	p := new(Places)
	var faults []error
	for _, file := range files {
		if err := p.add(file); err != nil {
			faults = append(faults, fmt.Errorf("geoip file %s: %w", file, err))
		}
	}
	return p, errors.Join(faults...)
}

func (p *Places) add(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if info.Size() > maxFile {
		return fmt.Errorf("%d bytes, want at most %d", info.Size(), maxFile)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	db, err := geoip2.OpenBytes(data)
	if err != nil {
		return fmt.Errorf("not a MaxMind DB file, or a damaged one: %w", err)
	}
	switch kind := db.Metadata().DatabaseType; {
	case strings.Contains(kind, "ASN"), strings.Contains(kind, "ISP"):
		p.asn = append(p.asn, db)
	case strings.Contains(kind, "Country"), strings.Contains(kind, "City"), strings.Contains(kind, "Enterprise"):
		p.country = append(p.country, db)
	default:
		return fmt.Errorf("holds %q, want an ASN, Country or City database", kind)
	}
	return nil
}

// Locate returns the autonomous system and the country (ISO 3166-1 alpha-2) of a.
func (p *Places) Locate(a netip.Addr) (asn uint32, country string) {
	for _, db := range p.asn {
		if r, err := db.ASN(a); err == nil && r.HasData() {
			asn = uint32(r.AutonomousSystemNumber)
			break
		}
	}
	for _, db := range p.country {
		if r, err := db.Country(a); err == nil && r.HasData() && r.Country.ISOCode != "" {
			country = r.Country.ISOCode
			break
		}
	}
	return asn, country
}
