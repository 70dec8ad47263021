package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// A recovery code is 128 random bits and 12 bits that tell a typing error from a
// wrong code, in Crockford's base32, which has no I, L, O and U: 28 letters and
// digits in seven groups of four.
const (
	recoveryCodes    = 10
	recoveryBytes    = 16
	recoverySymbols  = 28
	recoveryAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	recoveryName     = "recovery codes"
)

type recoverySecret [recoveryBytes]byte

// check is the first 12 bits of a hash: public, and about nobody.
func (s recoverySecret) check() uint32 {
	h := sha256.Sum256(append([]byte("kidoban recovery check v1\x00"), s[:]...))
	return uint32(binary.BigEndian.Uint16(h[:]) >> 4)
}

func (s recoverySecret) String() string {
	// 140 bits, five at a time from the front.
	hi, lo, check := binary.BigEndian.Uint64(s[:8]), binary.BigEndian.Uint64(s[8:]), uint64(s.check())
	bit := func(i int) uint64 {
		switch {
		case i < 64:
			return hi >> (63 - i) & 1
		case i < 128:
			return lo >> (127 - i) & 1
		}
		return check >> (139 - i) & 1
	}
	var b strings.Builder
	for i := range recoverySymbols {
		if i > 0 && i%4 == 0 {
			b.WriteByte('-')
		}
		var v uint64
		for k := range 5 {
			v = v<<1 | bit(5*i+k)
		}
		b.WriteByte(recoveryAlphabet[v])
	}
	return b.String()
}

// recoveryCode reads a code as people type it: in capitals or not, grouped or not,
// with I or L for 1 and O for 0.
func recoveryCode(typed string) (s recoverySecret, ok bool) {
	plain, ok := plainCode(typed)
	if !ok || len(plain) != recoverySymbols {
		return s, false
	}
	var check uint32
	for i := range len(plain) {
		c := plain[i]
		switch c {
		case 'I', 'L':
			c = '1'
		case 'O':
			c = '0'
		}
		v := strings.IndexByte(recoveryAlphabet, c)
		if v < 0 {
			return recoverySecret{}, false
		}
		for k := range 5 {
			n, bit := 5*i+k, v>>(4-k)&1
			if n < 8*recoveryBytes {
				s[n/8] |= byte(bit << (7 - n%8))
			} else {
				check = check<<1 | uint32(bit)
			}
		}
	}
	return s, check == s.check()
}

// hash is what is kept of a code. Codes are random and have 128 bits, so a plain
// approved hash is enough: SP 800-63B-4 section 3.1.2.2 and ASVS 5.0 6.5.2 ask for a
// salted password hash below 112 bits only.
func (s recoverySecret) hash() [sha256.Size]byte {
	return sha256.Sum256(append([]byte("kidoban recovery code v1\x00"), s[:]...))
}

// The secret of recovery codes is, for each, its hash and when it was used.
const recoveryRecord = sha256.Size + 8

// ReplaceRecoveryCodes makes ten new codes, which nobody can be shown again, and
// makes all former ones void: also disabled ones, since this binds anew.
func (fs *Factors) ReplaceRecoveryCodes(ctx context.Context, subject string, by Act, now time.Time) ([]string, Factor, []FactorNotice, error) {
	fail := func(err error) ([]string, Factor, []FactorNotice, error) {
		return nil, Factor{}, nil, fmt.Errorf("making recovery codes: %w", err)
	}
	now = stored(now)
	a, err := by.at(now)
	if err != nil {
		return fail(err)
	}
	if err := checkOwner(subject); err != nil {
		return fail(err)
	}
	f := factor{Factor: Factor{
		ID: rand.Text(), Subject: subject, Kind: RecoveryCodes, Name: recoveryName, State: FactorActive, Created: now, CodesLeft: recoveryCodes,
	}}
	var (
		codes  []string
		hashes []byte
	)
	for range recoveryCodes {
		var s recoverySecret
		rand.Read(s[:])
		h := s.hash()
		codes = append(codes, s.String())
		hashes = append(append(hashes, h[:]...), make([]byte, 8)...)
	}
	if err := fs.put(&f, hashes); err != nil {
		return fail(err)
	}
	var notices []FactorNotice
	err = fs.store.updateFactors(ctx, subject, nil, a, func(o *owned) error {
		notices = nil
		for i := range o.factors {
			if old := o.factors[i]; old.Kind == RecoveryCodes {
				notices = append(notices, o.tell(RecoveryCodesVoided, &old, by.By, now))
				o.drop(old.ID)
				break
			}
		}
		o.factors = append(o.factors, f)
		notices = append(notices, o.tell(FactorBound, &f, by.By, now))
		return nil
	})
	if err != nil {
		return fail(err)
	}
	return codes, f.Factor, notices, nil
}

// UseRecoveryCode uses one of the account's codes up. It works once, on all nodes
// together. All else is as with [Factors.VerifyTOTP]. A code with a typing error is
// told by its check digits, and is not counted as an attempt: ErrMalformedCode.
//
// A code alone is no recovery of an account of AAL2: SP 800-63B-4 section 4.2.2.2
// wants the password too. Where it did recover an account, section 4.2.1.1 wants new
// codes: call ReplaceRecoveryCodes and show them.
func (fs *Factors) UseRecoveryCode(ctx context.Context, subject, code string, by Act, now time.Time) (Attempt, error) {
	now = stored(now)
	secret, ok := recoveryCode(code)
	if !ok {
		return Attempt{Outcome: AttemptWrong}, ErrMalformedCode
	}
	hash := secret.hash()
	return fs.attempt(ctx, subject, nil, by, now, func(o *owned) (Attempt, error) {
		got, err := fs.tryAll(o, RecoveryCodes, 1, by.By, now, func(f *factor) (tried, error) {
			return fs.tryRecovery(f, hash, now)
		})
		if err != nil || got.Outcome != AttemptAccepted {
			return got, err
		}
		for i := range o.factors {
			if f := &o.factors[i]; f.ID == got.Factor.ID {
				got.Notices = append(got.Notices, o.tell(RecoveryCodeUsed, f, by.By, now))
			}
		}
		return got, nil
	})
}

// tryRecovery compares with every code that there was, used or not.
func (fs *Factors) tryRecovery(f *factor, hash [sha256.Size]byte, now time.Time) (tried, error) {
	all, err := fs.open(f)
	if err != nil {
		return tried{}, err
	}
	if f.Kind == RecoveryCodes && len(all) != recoveryCodes*recoveryRecord {
		return tried{}, fmt.Errorf("the secret of authenticator %s has %d bytes, want %d", f.ID, len(all), recoveryCodes*recoveryRecord)
	}
	list := make([]byte, recoveryCodes*recoveryRecord) // a decoy's secret is shorter
	copy(list, all)
	found := -1
	for i := range recoveryCodes {
		if subtle.ConstantTimeCompare(list[i*recoveryRecord:][:sha256.Size], hash[:]) == 1 {
			found = i
		}
	}
	if found < 0 || f.Kind != RecoveryCodes {
		return tried{}, nil
	}
	used := list[found*recoveryRecord+sha256.Size:][:8]
	if binary.BigEndian.Uint64(used) != 0 {
		return tried{used: true}, nil
	}
	return tried{accept: func() error {
		binary.BigEndian.PutUint64(used, uint64(max(toMicro(now), 1)))
		f.CodesLeft--
		return fs.put(f, list)
	}}, nil
}
