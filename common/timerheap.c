/* SPDX-License-Identifier: MIT */
#include "common/timerheap.h"

#include <stddef.h>

/* The root with the earlier key takes the other as its first child. */
static struct loop_timer *heap_meld(struct loop_timer *a, struct loop_timer *b)
{
    struct loop_timer *lower;

    if (a == NULL)
        return b;
    if (b == NULL)
        return a;
    lower = a->key_ms <= b->key_ms ? b : a;
    if (lower == a)
        a = b;
    lower->next = a->child;
    if (lower->next != NULL)
        lower->next->prev = &lower->next;
    lower->prev = &a->child;
    a->child = lower;
    return a;
}

/* Two passes without recursion: siblings in pairs onto a stack, then the stack into one.
 */
static struct loop_timer *heap_join(struct loop_timer *first)
{
    struct loop_timer *stack = NULL, *root = NULL;

    while (first != NULL) {
        struct loop_timer *a = first, *b = a->next;

        first = b != NULL ? b->next : NULL;
        a->next = NULL;
        if (b != NULL)
            b->next = NULL;
        a = heap_meld(a, b);
        a->next = stack;
        stack = a;
    }
    while (stack != NULL) {
        struct loop_timer *a = stack;

        stack = a->next;
        a->next = NULL;
        root = heap_meld(root, a);
    }
    return root;
}

void timerheap_put(struct loop_timer **root, struct loop_timer *t)
{
    t->child = t->next = NULL;
    *root = heap_meld(*root, t);
    (*root)->prev = root;
}

void timerheap_cut(struct loop_timer **root, struct loop_timer *t)
{
    struct loop_timer *below = heap_join(t->child);

    *t->prev = t->next;
    if (t->next != NULL)
        t->next->prev = t->prev;
    *root = heap_meld(*root, below);
    if (*root != NULL)
        (*root)->prev = root;
    t->child = t->next = NULL;
    t->prev = NULL;
}
