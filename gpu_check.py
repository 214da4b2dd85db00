import sys, time, statistics; sys.path.insert(0,'tests')
import torch, tiny_models as tiny, planted_steering as planted
from queries.plan import SteeringPlan
from queries.generation import generate
from queries.steering import steered
tok=tiny.tiny_tokenizer()
P=["w5 w9 w11 w30","w40","w7 w8 w21"]
def plan(pos="all",w=32,layers=(1,2)):
    return SteeringPlan((planted.intervention(planted.planted_dictionary(f"blocks.{layers[0]}.hook_resid_post",d_model=w),7,"add","40%",pos),
      planted.intervention(planted.planted_dictionary(f"blocks.{layers[1]}.hook_mlp_out",d_model=w),3,"clamp",2,pos)))
for fam in tiny.FAMILIES:
    m=tiny.tiny_model(fam); 
    for pos in ("all","prompt","generated"):
        c=[g.tokens for g in generate(m,tok,P,plan(pos),max_new_tokens=6)]
        m=m.cuda(); g=[x.tokens for x in generate(m,tok,P,plan(pos),max_new_tokens=6)]
        u=[x.tokens for x in generate(m,tok,P,plan(pos),max_new_tokens=6,use_cache=False)]
        m=m.cpu(); print(fam,pos,c==g==u)
    b=tiny.tiny_model(fam,dtype=torch.bfloat16).cuda()
    state=torch.cuda.get_rng_state(); a1=generate(b,tok,P,plan(),temperature=1.2,seed=3); a2=generate(b,tok,P,plan(),temperature=1.2,seed=3)
    assert a1==a2 and torch.equal(state,torch.cuda.get_rng_state())
try:
    import accelerate
    m=tiny.tiny_model("llama"); ref=[g.tokens for g in generate(m,tok,P,plan(),max_new_tokens=6)]
    m=accelerate.dispatch_model(m,{"model.embed_tokens":"cpu","model.layers.0":"cpu","model.layers.1":"cpu","model.layers.2":0,"model.layers.3":0,"model.norm":0,"model.rotary_emb":0,"lm_head":0},main_device=0)
    print({k: getattr(v,"_hf_hook",None) and v._hf_hook.execution_device for k,v in [("e",m.model.embed_tokens),("3",m.model.layers[3])]})
    print("device_map", ref==[g.tokens for g in generate(m,tok,P,plan(),max_new_tokens=6)])
except ImportError as e: print(e)
import transformers
for dt in (torch.float32, torch.bfloat16):
    cfg=transformers.LlamaConfig(vocab_size=49152,hidden_size=576,num_hidden_layers=30,num_attention_heads=9,num_key_value_heads=3,intermediate_size=1536,tie_word_embeddings=True,eos_token_id=None,pad_token_id=0)
    m=transformers.LlamaForCausalLM(cfg).to(dt).cuda().eval()
    D=lambda h:planted.planted_dictionary(h,d_model=576)
    plans={"add%":SteeringPlan(tuple(planted.intervention(D(f"blocks.{l}.hook_resid_post"),3,"add","1%") for l in range(8,14))),
     "add":SteeringPlan(tuple(planted.intervention(D(f"blocks.{l}.hook_resid_post"),3,"add",1) for l in range(8,14))),
     "sup10mod":SteeringPlan(tuple(planted.intervention(D(f"blocks.{l}.{h}"),3,"suppress",.9) for l in range(8,13) for h in("hook_resid_post","hook_mlp_out"))),
     "sup10one":SteeringPlan(tuple(planted.intervention(D("blocks.8.hook_resid_post"),i,"suppress",.9) for i in range(10)))}
    def sec(p):
        torch.cuda.synchronize(); t=time.perf_counter(); n=len(generate(m,tok,P[:1],p,max_new_tokens=64)[0].tokens); torch.cuda.synchronize(); return (time.perf_counter()-t)/n
    for name,p in plans.items():
        sec(p);sec(None); r=[]
        for i in range(15):
            if i%2: a=sec(None);b=sec(p)
            else: b=sec(p);a=sec(None)
            r.append((b/a,a))
        print(dt,name,round(statistics.median(x for x,_ in r),4),"ms/token",round(1000*statistics.median(x for _,x in r),2))
