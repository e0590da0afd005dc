package object_test

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"hash/crc32"
	"hash/crc64"
)

// checksums are those of S3, as its headers have them.
func checksums(data []byte) map[string]string {
	sums := map[string]string{}
	for name, h := range map[string]hash.Hash{
		"Crc32": crc32.NewIEEE(), "Crc32c": crc32.New(crc32.MakeTable(crc32.Castagnoli)), "Sha1": sha1.New(), "Sha256": sha256.New(),
		"Crc64nvme": crc64.New(crc64.MakeTable(0x9a6c9329ac4bc9b5)),
	} {
		h.Write(data)
		sums[name] = base64.StdEncoding.EncodeToString(h.Sum(nil))
	}
	return sums
}
