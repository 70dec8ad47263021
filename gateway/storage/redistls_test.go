package storage_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/kidoban/kidoban/gateway/storage"
	"github.com/kidoban/kidoban/gateway/storage/storagetest"
)

// issue makes a certificate for this machine, signed by itself, and its files.
func issue(t *testing.T) (certificate, key string) {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kidoban"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, secret.Public(), secret)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificate, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: plain}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}

func TestRedisTLS(t *testing.T) {
	certificate, key := issue(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	storagetest.Redis(t, "--tls-port", strconv.Itoa(port), "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate)

	c := storage.RedisConfig{URL: "rediss://" + address, CA: certificate, Certificate: certificate, Key: key, Budget: 5 * time.Second}
	if err := openRedis(t, c).Ping(t.Context()).Err(); err != nil {
		t.Errorf("with both certificates: %v", err)
	}
	stranger, strangerKey := issue(t)
	for name, c := range map[string]storage.RedisConfig{
		"without a certificate of ours":     {URL: c.URL, CA: certificate},
		"with a certificate of a stranger":  {URL: c.URL, CA: certificate, Certificate: stranger, Key: strangerKey},
		"with the authorities of a system":  {URL: c.URL, Certificate: certificate, Key: key},
		"with the authority of another one": {URL: c.URL, CA: stranger, Certificate: certificate, Key: key},
	} {
		if err := openRedis(t, c).Ping(t.Context()).Err(); err == nil {
			t.Errorf("%s: connected", name)
		}
	}
}
