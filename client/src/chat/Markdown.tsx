/**
 * Markdown of an answer, block by block.
 *
 * What a model writes is not trusted: raw HTML stays text (react-markdown
 * builds elements, never markup), addresses pass its protocol filter, and
 * pictures become links, because fetching one would tell its host who reads.
 */
import type { ComponentProps } from 'react'
import { memo } from 'react'
import ReactMarkdown, { type Components, type ExtraProps } from 'react-markdown'
import rehypeHighlight from 'rehype-highlight'
import remarkGfm from 'remark-gfm'
import { splitBlocks } from './blocks'
import { CodeBlock } from './CodeBlock'
import './highlight.css'
import classes from './markdown.module.css'

interface Props {
  text: string
  /** True while text may still be added at the end. */
  growing: boolean
}

/** Colouring a growing block starts over with each frame, so long ones wait for their end. */
const COLOUR_WHILE_GROWING = 4000

export const Markdown = memo(function Markdown({ text, growing }: Props) {
  const blocks = splitBlocks(text)
  return (
    <div className={classes.markdown}>
      {blocks.map((block, index) => {
        const open = growing && index === blocks.length - 1
        return (
          // biome-ignore lint/suspicious/noArrayIndexKey: blocks are only added at the end
          <Block key={index} text={block} colour={!open || block.length < COLOUR_WHILE_GROWING} />
        )
      })}
    </div>
  )
})

const plain = { remark: [remarkGfm], rehype: [] }
const coloured = { remark: [remarkGfm], rehype: [rehypeHighlight] }

const Block = memo(function Block({ text, colour }: { text: string; colour: boolean }) {
  const plugins = colour ? coloured : plain
  return (
    <ReactMarkdown
      remarkPlugins={plugins.remark}
      rehypePlugins={plugins.rehype}
      components={components}
    >
      {text}
    </ReactMarkdown>
  )
})

function AwayLink({ href, children }: ComponentProps<'a'>) {
  if (!href) return <span>{children}</span>
  // Footnotes point into the answer itself.
  if (href.startsWith('#')) return <a href={href}>{children}</a>
  return (
    <a href={href} target="_blank" rel="noopener noreferrer">
      {children}
    </a>
  )
}

function PictureLink({ src, alt }: ComponentProps<'img'>) {
  const address = typeof src === 'string' ? src : undefined
  return <AwayLink href={address}>{alt || address || 'picture'}</AwayLink>
}

function WideTable({ node: _, ...table }: ComponentProps<'table'> & ExtraProps) {
  return (
    <div className={classes.wide}>
      <table {...table} />
    </div>
  )
}

const components: Components = { a: AwayLink, img: PictureLink, pre: CodeBlock, table: WideTable }
