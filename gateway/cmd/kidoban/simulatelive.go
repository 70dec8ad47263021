package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/kidoban/kidoban/detectors/simulate"
	"github.com/kidoban/kidoban/gateway/guard"
)

// liveFlags are those of a run against a gate that runs.
type liveFlags struct {
	url, accounts, authority string
	compress                 float64
}

// gate is the gate that the flags tell of, or nil if they tell of none.
func (l liveFlags) gate() (*simulate.Live, error) {
	switch {
	case l.url == "" && (l.accounts != "" || l.authority != ""):
		return nil, errors.New("--accounts and --authority are for --live URL")
	case l.url == "":
		return nil, nil
	case l.accounts == "":
		return nil, errors.New("--live needs --accounts FILE: who can log in, as kidoban demo writes accounts.csv")
	}
	people, err := readAccounts(l.accounts)
	if err != nil {
		return nil, err
	}
	live := &simulate.Live{Entry: simulate.Entry{URL: l.url}, Accounts: accountsOf(people), DeviceCookie: guard.DeviceCookie, Compress: l.compress}
	if l.authority != "" {
		pem, err := os.ReadFile(l.authority)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--authority %s: no certificate in it", l.authority)
		}
		live.Entry.TLS = &tls.Config{RootCAs: pool}
	}
	return live, nil
}
