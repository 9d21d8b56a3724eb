/* SPDX-License-Identifier: MIT */
/** pki -- a certificate authority of a test, in a folder of its own. Aborts
 *        on failure. */
#ifndef TESTS_SUPPORT_PKI_H
#define TESTS_SUPPORT_PKI_H

struct pki {
    char dir[64];
    char ca_file[96];
    struct pki_key *ca;               /* NULL: not made */
    char cert_file[96], key_file[96]; /* of the last pki_issue() */
};

/** Makes the folder and a self-signed CA named `cn` in ca_file. */
void pki_init(struct pki *p, const char *cn);
/**
 * Issues a P-256 leaf into cert_file and key_file, new names at each call.
 * @alt   subject alternative names, OpenSSL's way: "DNS:a.example,IP:127.0.0.1"
 * @days  valid from a day ago until so many days from now; negative: expired
 */
void pki_issue(struct pki *p, const char *cn, const char *alt, int days);
/** Removes the folder. */
void pki_done(struct pki *p);

#endif
