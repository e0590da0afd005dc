package object

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// ErrChecksum is in the chain of errors of a body whose checksum is not the one that the store keeps beside the object.
// What was read before is not to be believed. Opening it again may help: bits flip on the way, too.
var ErrChecksum = errors.New("checksum mismatch")

// checksum follows a whole body, over all the pieces it may arrive in. The SDK would check a body that arrives in one piece
// only.
type checksum struct {
	hash.Hash
	name string
	want []byte
}

// CRC-64/NVME of the NVM Express command set, reflected.
var crc64NVME = sync.OnceValue(func() *crc64.Table { return crc64.MakeTable(0x9a6c9329ac4bc9b5) })

// newChecksum is of the first checksum that the answer has and that covers the whole object; nil if there is none. That of
// an object uploaded in parts may cover the parts' checksums instead ("...-3"). The ETag is none: it is an MD5 sum only of
// some objects.
func newChecksum(out *s3.GetObjectOutput) *checksum {
	if out.ChecksumType == types.ChecksumTypeComposite {
		return nil
	}
	for _, c := range []struct {
		name  string
		value *string
		hash  func() hash.Hash
	}{
		{"CRC64NVME", out.ChecksumCRC64NVME, func() hash.Hash { return crc64.New(crc64NVME()) }},
		{"CRC32C", out.ChecksumCRC32C, func() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }},
		{"CRC32", out.ChecksumCRC32, func() hash.Hash { return crc32.NewIEEE() }},
		{"SHA256", out.ChecksumSHA256, sha256.New},
		{"SHA1", out.ChecksumSHA1, sha1.New},
	} {
		value := aws.ToString(c.value)
		if value == "" || strings.Contains(value, "-") {
			continue
		}
		h := c.hash()
		if want, err := base64.StdEncoding.DecodeString(value); err == nil && len(want) == h.Size() {
			return &checksum{h, c.name, want}
		}
	}
	return nil
}
